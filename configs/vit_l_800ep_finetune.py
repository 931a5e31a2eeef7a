r"""Fine-tuning of ViT-L/16 on ImageNet-1K after 800 epochs of pre-training.

    python main.py --config=configs/vit_l_800ep_finetune.py --workdir=runs/vit_l_800ep_finetune \
        --config.checkpoint.init_from=runs/vit_l_800ep

Published: 85.8 % top-1.
Settings follow the supplement (Table 4); where it gives several rates, we use the release's. The release differs in:
    a batch size of 1024 instead of 4096      --config.batch_size=1024
"""

from localmim_jax.configs.parts import finetune, vit


def get_config():
    config = finetune(vit("vit_l", drop_path=0.2))
    config.batch_size = 4096
    config.num_epochs = 50.0
    config.optimizer.layer_decay = 0.75
    config.schedule.peak_lr = 3e-3
    config.schedule.min_lr = 1e-6
    config.schedule.warmup_epochs = 5.0
    return config
