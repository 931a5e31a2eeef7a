r"""Linear probe of ViT-B/16 on ImageNet-1K after 100 epochs of pre-training: the encoder is frozen.

    python main.py --config=configs/vit_b_100ep_linear.py --workdir=runs/vit_b_100ep_linear \
        --config.checkpoint.init_from=runs/vit_b_100ep

Published: nothing for LocalMIM. The protocol is MAE's: LARS, base rate 0.1 (times batch / 256), no weight decay, 90
epochs, crops and flips only, a batch norm without scale and bias before the head. The feature is that of k-NN, the
mean of the normalized patch tokens; --config.model.pool=class uses the class token instead.
"""

from localmim_jax.configs.parts import linear_probe, vit


def get_config():
    return linear_probe(vit("vit_b"))
