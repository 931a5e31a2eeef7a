r"""Linear probe of Swin-B (pixel targets) on ImageNet-1K after 400 epochs of pre-training.

    python main.py --config=configs/swin_b_pixel_400ep_linear.py --workdir=runs/swin_b_pixel_400ep_linear \
        --config.checkpoint.init_from=runs/swin_b_pixel_400ep

Published: nothing for LocalMIM. The protocol is MAE's: LARS, base rate 0.1 (times batch / 256), no weight decay, 90
epochs, crops and flips only, a batch norm without scale and bias before the head. The feature is the mean of the
normalized tokens of the last stage. The encoder is frozen.
"""

from localmim_jax.configs.parts import linear_probe, swin


def get_config():
    return linear_probe(swin("swin_b"))
