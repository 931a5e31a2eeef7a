"""LocalMIM, ViT-S/16, HOG targets, 100 epochs of ImageNet-1K: the recipe of ViT-B on a smaller encoder.

    python main.py --config=configs/vit_s_100ep.py --workdir=runs/vit_s_100ep

Published: nothing. Neither the paper nor the release has a ViT-S, so batch size and learning rate are those of ViT-B.
"""

from localmim_jax.configs.parts import pretrain, vit


def get_config():
    config = pretrain(vit("vit_s"))
    config.num_epochs = 100.0
    config.schedule.warmup_epochs = 10.0
    return config
