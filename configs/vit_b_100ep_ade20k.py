r"""UperNet on ADE20K with ViT-B/16 after 100 epochs of pre-training.

    python main.py --config=configs/vit_b_100ep_ade20k.py --workdir=runs/vit_b_100ep_ade20k \
        --config.checkpoint.init_from=runs/vit_b_100ep --config.data.name=masks:/path/to/ADEChallengeData2016

Published: no number in the supplement. Compare mIoU with the main text of the paper, which we do not have.
Settings are those of vit_b_1600ep_ade20k.py; the supplement has one set for ViT-B.
"""

from localmim_jax.configs import vit_b_1600ep_ade20k


def get_config():
    return vit_b_1600ep_ade20k.get_config()
