r"""Linear probe of Swin-T (HOG targets) on ImageNet-1K after 100 epochs of pre-training: the encoder is frozen.

    python main.py --config=configs/swin_t_hog_100ep_linear.py --workdir=runs/swin_t_hog_100ep_linear \
        --config.checkpoint.init_from=runs/swin_t_hog_100ep

Published: nothing. The protocol is MAE's; see swin_b_hog_100ep_linear.py. For fewer than a hundred thousand images,
use localmim probe.
"""

from localmim_jax.configs.parts import linear_probe, swin


def get_config():
    return linear_probe(swin("swin_t"))
