"""LocalMIM, Swin-B, normalized pixels as targets, 100 epochs of ImageNet-1K.

    python main.py --config=configs/swin_b_pixel_100ep.py --workdir=runs/swin_b_pixel_100ep

Published: nothing for pixels after 100 epochs.
Batch size, learning rate and warm-up follow the supplement (Table 3, section C). The authors' release differs in:
    one mask per device instead of 8 per batch    --config.model.num_masks=DEVICES
and in two defects, which are fixed here (docs/differences.md).
"""

from localmim_jax.configs.parts import pretrain, swin


def get_config():
    config = pretrain(swin("swin_b"))
    config.model.target.kind = "pixels"
    config.num_epochs = 100.0
    config.schedule.warmup_epochs = 10.0
    return config
