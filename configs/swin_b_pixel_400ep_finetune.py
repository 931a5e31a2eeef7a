r"""Fine-tuning of Swin-B (pixel targets) on ImageNet-1K after 400 epochs of pre-training.

    python main.py --config=configs/swin_b_pixel_400ep_finetune.py --workdir=runs/swin_b_pixel_400ep_finetune \
        --config.checkpoint.init_from=runs/swin_b_pixel_400ep

Published: 84.0 % top-1.
Settings follow the supplement (Table 4); where it gives several rates, we use the release's.
"""

from localmim_jax.configs.parts import finetune, swin


def get_config():
    config = finetune(swin("swin_b", drop_path=0.1))
    config.optimizer.layer_decay = 0.9
    config.schedule.peak_lr = 4e-3
    config.schedule.min_lr = 2.5e-7
    return config
