r"""A tiny ViT on CIFAR-10, pre-trained and fine-tuned on its 50,000 images.

    python main.py --config=configs/cifar10.py --workdir=runs/cifar10
    python main.py --config=configs/cifar10_finetune.py --workdir=runs/cifar10_finetune \
        --config.checkpoint.init_from=runs/cifar10

Published: nothing for LocalMIM. MAE with a ViT of 3.6 million parameters reaches 96.4 % after fine-tuning (Tan,
"Pre-training of lightweight vision transformers on small datasets with minimally scaled images", 2024), with patches of
3 px of images of 36 x 36. This encoder has as many parameters and the same 12 x 12 patches, but images are enlarged to
96 x 96 and patches have 8 px: HOG needs cells of more than one pixel.
Not run by us. Planned cost: 22 PFLOP of the model (1.1 GFLOP an image), minutes of one H200 plus the reading; for other
hardware, localmim plan --config=configs/cifar10.py
"""

from localmim_jax.configs.parts import pretrain, vit


def encoder(**changes):
    """The tiny ViT."""
    return vit("vit_ti", patch_size=8, depth=8, **changes)


def get_config():
    config = pretrain(encoder())
    config.image_size = (96, 96)
    config.batch_size = 512
    config.num_epochs = 400.0

    config.data.name = config.eval.knn.name = "tfds:cifar10"
    config.data.mean = (0.491, 0.482, 0.447)
    config.data.std = (0.247, 0.243, 0.262)

    config.model.taps = (1, 3, 7, 8)  # ViT-B's 2, 4, 10, 12 at two thirds of the depth
    config.model.target.bins = 9
    config.model.decoder.update({"width": 64, "num_heads": 2})

    config.schedule.update({"base_lr": 5e-4, "warmup_epochs": 20.0})
    config.checkpoint.every_epochs = 10.0
    config.eval.knn.update({"enabled": True, "test_split": "test", "every_epochs": 50.0, "resize": 96})
    config.eval.rank.resize = config.eval.reconstruction.resize = 96
    return config
