"""A small ViT pre-trained on handwritten digits: at most five minutes on two CPU cores, nothing to download.

    make quickstart
    python main.py --config=configs/quickstart.py --workdir=runs/quickstart

Published: nothing. What to look for: the k-NN accuracy of the encoder on the digits' test split, far higher at the end
than at the start. (k-NN on the raw pixels is printed beside it; on this easy dataset it is very strong.)
The images are 8 x 8 pixels, enlarged to 32 x 32, so the model sees a 4 x 4 grid of patches and reconstructs HOG with
cells of 2, 4, 8 and 16 pixels.
"""

from configs import common


def get_config():
    config = common.pretrain()
    config.image_size = (32, 32)
    config.batch_size = 128
    config.num_epochs = 60.0

    config.data.name = "digits"
    config.data.channels = 1
    config.data.mean = (0.306,)
    config.data.std = (0.376,)
    config.data.crop_scale = (0.5, 1.0)
    config.data.flip = False  # a mirrored digit is another sign

    config.model.update({"variant": "vit_ti", "patch_size": 8, "width": 128, "depth": 6, "num_heads": 4})
    config.model.taps = (1, 2, 5, 6)  # ViT-B's 2, 4, 10, 12 at half the depth
    config.model.dtype = "float32"
    config.model.decoder.update({"width": 64, "num_heads": 4})

    config.schedule.base_lr = 2e-3
    config.schedule.warmup_epochs = 5.0
    config.checkpoint.every_epochs = 20.0
    config.log.every_steps = 20
    config.eval.knn.update({"enabled": True, "name": "digits", "test_split": "test", "resize": 32})
    config.eval.reconstruction.update({"every_epochs": 0.0, "resize": 32})
    return config
