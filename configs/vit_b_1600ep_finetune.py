r"""Fine-tuning of ViT-B/16 on ImageNet-1K after 1600 epochs of pre-training.

    python main.py --config=configs/vit_b_1600ep_finetune.py --workdir=runs/vit_b_1600ep_finetune \
        --config.checkpoint.init_from=runs/vit_b_1600ep

Published: 84.0 % top-1.
Settings follow the supplement (Table 4); where it gives several rates, we use the release's.
"""

from localmim_jax.configs.parts import finetune, vit


def get_config():
    config = finetune(vit("vit_b", drop_path=0.1))
    config.optimizer.layer_decay = 0.65
    config.schedule.peak_lr = 2e-3
    config.schedule.min_lr = 1e-5
    return config
