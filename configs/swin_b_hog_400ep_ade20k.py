r"""UperNet on ADE20K with Swin-B (HOG targets) after 400 epochs of pre-training.

    python main.py --config=configs/swin_b_hog_400ep_ade20k.py --workdir=runs/swin_b_hog_400ep_ade20k \
        --config.checkpoint.init_from=runs/swin_b_hog_400ep --config.data.name=masks:/path/to/ADEChallengeData2016

Published: no number in the supplement. Compare mIoU with the main text of the paper, which we do not have.
Settings follow the supplement ("Semantic segmentation on ADE20K", the recipe for Swin).
"""

from localmim_jax.configs.parts import segment, swin


def get_config():
    config = segment(swin("swin_b", drop_path=0.3))
    config.optimizer.weight_decay = 0.01
    config.schedule.peak_lr = 6e-5
    config.schedule.warmup_lr = 6e-11
    return config
