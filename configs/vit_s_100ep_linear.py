r"""Linear probe of ViT-S/16 on ImageNet-1K after 100 epochs of pre-training: the encoder is frozen.

    python main.py --config=configs/vit_s_100ep_linear.py --workdir=runs/vit_s_100ep_linear \
        --config.checkpoint.init_from=runs/vit_s_100ep

Published: nothing. The protocol is MAE's; see vit_b_100ep_linear.py. For fewer than a hundred thousand images,
use localmim probe.
"""

from localmim_jax.configs.parts import linear_probe, vit


def get_config():
    return linear_probe(vit("vit_s"))
