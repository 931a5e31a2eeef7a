r"""Fine-tuning of ViT-S/16 on ImageNet-1K after 100 epochs of pre-training: the settings of ViT-B on a smaller encoder.

    python main.py --config=configs/vit_s_100ep_finetune.py --workdir=runs/vit_s_100ep_finetune \
        --config.checkpoint.init_from=runs/vit_s_100ep

Published: nothing. Neither the paper nor the release has a ViT-S, so batch size, rates and drop path are those
of ViT-B.
"""

from localmim_jax.configs.parts import finetune, vit


def get_config():
    config = finetune(vit("vit_s", drop_path=0.1))
    config.optimizer.layer_decay = 0.75
    config.schedule.peak_lr = 4e-3
    config.schedule.min_lr = 1e-6
    return config
