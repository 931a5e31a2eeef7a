r"""Fine-tuning of Swin-T (HOG targets) on ImageNet-1K after 100 epochs of pre-training: Swin-B's settings.

    python main.py --config=configs/swin_t_hog_100ep_finetune.py --workdir=runs/swin_t_hog_100ep_finetune \
        --config.checkpoint.init_from=runs/swin_t_hog_100ep

Published: nothing. Neither the paper nor the release has a Swin-T, so batch size, rates and drop path are
those of Swin-B.
"""

from localmim_jax.configs.parts import finetune, swin


def get_config():
    config = finetune(swin("swin_t", drop_path=0.1))
    config.optimizer.layer_decay = 0.9
    config.schedule.peak_lr = 5e-3
    config.schedule.min_lr = 2.5e-7
    return config
