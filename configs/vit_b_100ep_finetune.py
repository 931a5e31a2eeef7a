r"""Fine-tuning of ViT-B/16 on ImageNet-1K after 100 epochs of pre-training.

    python main.py --config=configs/vit_b_100ep_finetune.py --workdir=runs/vit_b_100ep_finetune \
        --config.checkpoint.init_from=runs/vit_b_100ep

Published: 83.3 % top-1 (supplement, Table 1a, "local" and "multi-scale").
Settings follow the supplement (Table 4); where it gives several rates, we use the release's. The learning rate is
absolute: it is not scaled with the batch size. Options:
    a folder with train/ and val/            --config.data.name=folder:/path
    train only the last four blocks          --config.model.trained_blocks=4
    a moving average of the parameters       --config.optimizer.ema_decay=0.9999
"""

from localmim_jax.configs.parts import finetune, vit


def get_config():
    config = finetune(vit("vit_b", drop_path=0.1))
    config.optimizer.layer_decay = 0.75
    config.schedule.peak_lr = 4e-3
    config.schedule.min_lr = 1e-6
    return config
