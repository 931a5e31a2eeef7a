r"""Fine-tuning of Swin-L (HOG targets, window 14) on ImageNet-1K after 800 epochs of pre-training.

    python main.py --config=configs/swin_l_hog_800ep_finetune.py --workdir=runs/swin_l_hog_800ep_finetune \
        --config.checkpoint.init_from=runs/swin_l_hog_800ep

Published: 85.6 % top-1.
Settings follow the supplement (Table 4) except for the peak learning rate: the supplement gives none for Swin-L. We
use the release's 2e-3, which is not among the supplement's rates. The release differs in:
    a batch size of 2048 instead of 4096      --config.batch_size=2048
"""

from localmim_jax.configs.parts import finetune, swin


def get_config():
    config = finetune(swin("swin_l", window=14, drop_path=0.3))
    config.batch_size = 4096
    config.optimizer.layer_decay = 0.8
    config.schedule.peak_lr = 2e-3
    config.schedule.min_lr = 2.5e-7
    return config
