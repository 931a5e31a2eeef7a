"""LocalMIM, Swin-B, HOG targets, 100 epochs of ImageNet-1K.

    python main.py --config=configs/swin_b_hog_100ep.py --workdir=runs/swin_b_hog_100ep

Published: 83.8 % ImageNet-1K top-1 after fine-tuning (supplement, Table 1b, "local" and "multi-scale"; the table does
not name the target; HOG is the paper's default).
Batch size, learning rate, warm-up and bins follow the supplement (Table 3, section C). The authors' release differs in:
    a random frozen bias on the HOG gradients     --config.model.target.hog_bias=VALUES.npz (from its checkpoint)
    one mask per device instead of 8 per batch    --config.model.num_masks=DEVICES
and in two defects, which are fixed here (docs/differences.md).
The batch size of 2048 is global. If it does not fit in memory: --config.accum_steps=8, or --config.model.remat=true.
"""

from localmim_jax.configs.parts import pretrain, swin


def get_config():
    config = pretrain(swin("swin_b"))
    config.num_epochs = 100.0
    config.schedule.warmup_epochs = 10.0
    return config
