"""LocalMIM, Swin-B, HOG targets, 400 epochs of ImageNet-1K.

    python main.py --config=configs/swin_b_hog_400ep.py --workdir=runs/swin_b_hog_400ep

Published: 84.1 % ImageNet-1K top-1 after fine-tuning, at 1.1 GPU hours per epoch on one V100.
Batch size, learning rate, warm-up and bins follow the supplement (Table 3, section C). The authors' release differs in:
    a random frozen bias on the HOG gradients     --config.model.target.hog_bias=VALUES.npz (from its checkpoint)
    one mask per device instead of 8 per batch    --config.model.num_masks=DEVICES
and in two defects, which are fixed here (docs/differences.md).
"""

from localmim_jax.configs.parts import pretrain, swin


def get_config():
    config = pretrain(swin("swin_b"))
    config.num_epochs = 400.0
    config.schedule.warmup_epochs = 40.0
    config.eval.reconstruction.every_epochs = 50.0
    return config
