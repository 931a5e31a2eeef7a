"""LocalMIM, Swin-B, HOG targets, 100 epochs of ImageNet-1K.

    python main.py --config=configs/swin_b_hog_100ep.py --workdir=runs/swin_b_hog_100ep

Published: 83.8 % ImageNet-1K top-1 after fine-tuning (supplement, Table 1b, "local" and "multi-scale"; the table does
not say which target, and HOG is the paper's default).
Batch, rates, warm-up and bins are the supplement's (Table 3, section C). The authors' release differs in:
    a random frozen bias on the HOG gradients     --config.model.target.hog_bias=VALUES.npz (from its checkpoint)
    one mask per device instead of 8 per batch    --config.model.num_masks=DEVICES
and in two defects that are not repeated here (docs/differences.md).
The batch of 2048 is global. Where it does not fit: --config.accum_steps=8, or --config.model.remat=true.
"""

from localmim_jax.configs.parts import pretrain, swin


def get_config():
    config = pretrain(swin("swin_b"))
    config.num_epochs = 100.0
    config.schedule.warmup_epochs = 10.0
    return config
