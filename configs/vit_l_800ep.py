"""LocalMIM, ViT-L/16, HOG targets, 800 epochs of ImageNet-1K.

    python main.py --config=configs/vit_l_800ep.py --workdir=runs/vit_l_800ep

Published: 85.8 % ImageNet-1K top-1 after fine-tuning, at 1.0 GPU hours per epoch on one V100.
Batch size, learning rate, warm-up and bins follow the supplement (Table 3, section C). The authors' release differs in:
    base learning rate 1.5e-4 instead of 2e-4     --config.schedule.base_lr=1.5e-4
    a minimum learning rate of 1e-6               --config.schedule.min_lr=1e-6
    a random frozen bias on the HOG gradients     --config.model.target.hog_bias=VALUES.npz (from its checkpoint)
"""

from localmim_jax.configs.parts import pretrain, vit


def get_config():
    config = pretrain(vit("vit_l"))
    config.batch_size = 4096
    config.num_epochs = 800.0
    config.schedule.warmup_epochs = 40.0
    config.eval.reconstruction.every_epochs = 50.0
    return config
