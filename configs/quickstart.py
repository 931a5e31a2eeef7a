"""A small ViT pre-trained on handwritten digits: at most five minutes on two CPU cores, nothing to download.

    make quickstart
    python main.py --config=configs/quickstart.py --workdir=runs/quickstart

Published: nothing. Expect: the k-NN accuracy of the encoder on the test digits (knn/accuracy) rises from 0.59,
untrained, to about 0.9. (On this easy dataset, raw pixels, knn/raw_pixel_accuracy, are a strong baseline: 0.95.)
The images are 8 x 8 pixels, enlarged to 32 x 32, so the model sees a 4 x 4 grid of patches and reconstructs HOG with
cells of 2, 4, 8 and 16 pixels.
"""

from localmim_jax.configs.parts import pretrain, vit


def encoder(**changes):
    """The small ViT of the quickstarts."""
    sizes = {"patch_size": 8, "width": 128, "depth": 6, "num_heads": 4}
    return vit("vit_ti", dtype="float32", **sizes | changes)


def get_config():
    config = pretrain(encoder())
    config.image_size = (32, 32)
    config.batch_size = 32  # many small steps; 60 epochs of 128 took longer and ended at 0.84
    config.num_epochs = 30.0

    config.data.name = "digits"
    config.data.channels = 1
    config.data.mean = (0.306,)
    config.data.std = (0.376,)
    config.data.crop_scale = (0.5, 1.0)
    config.data.flip = False  # a mirrored digit is another sign

    config.model.taps = (1, 2, 5, 6)  # ViT-B's 2, 4, 10, 12 at half the depth
    config.model.decoder.update({"width": 64, "num_heads": 4})

    config.schedule.base_lr = 8e-3
    config.schedule.warmup_epochs = 5.0
    config.checkpoint.every_epochs = 10.0
    config.log.every_steps = 100
    config.eval.knn.update({"enabled": True, "raw_pixels": True, "name": "digits", "test_split": "test", "resize": 32})
    config.eval.rank.update({"every_epochs": 0.0, "resize": 32})
    config.eval.reconstruction.update({"every_epochs": 0.0, "resize": 32})
    return config
