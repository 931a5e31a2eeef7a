"""LocalMIM, Swin-T, HOG targets, 100 epochs of ImageNet-1K: for small machines.

    python main.py --config=configs/swin_t_hog_100ep.py --workdir=runs/swin_t_hog_100ep

Published: nothing. Neither the paper nor the release has a Swin-T, so batch size and learning rate are those of Swin-B.
The batch size of 2048 is global. If it does not fit in memory: --config.accum_steps=8, or --config.model.remat=true.
Each of the accum_steps micro-batches draws its own --config.model.num_masks masks.
"""

from localmim_jax.configs.parts import pretrain, swin


def get_config():
    config = pretrain(swin("swin_t"))
    config.num_epochs = 100.0
    config.schedule.warmup_epochs = 10.0
    return config
