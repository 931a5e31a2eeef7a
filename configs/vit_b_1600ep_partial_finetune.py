r"""Fine-tuning of only the last four blocks of ViT-B/16 on ImageNet-1K after 1600 epochs of pre-training.

    python main.py --config=configs/vit_b_1600ep_partial_finetune.py --workdir=runs/vit_b_1600ep_partial_finetune \
        --config.checkpoint.init_from=runs/vit_b_1600ep

Published: nothing. Everything except the trained blocks is as in vit_b_1600ep_finetune.py. To train another number of
blocks: --config.model.trained_blocks=1; 0 trains only the norm and the head.
"""

from localmim_jax.configs import vit_b_1600ep_finetune


def get_config():
    config = vit_b_1600ep_finetune.get_config()
    config.model.trained_blocks = 4
    return config
