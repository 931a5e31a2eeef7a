"""LocalMIM, ViT-B/16, HOG targets, 1600 epochs of ImageNet-1K: the paper's main ViT-B.

    python main.py --config=configs/vit_b_1600ep.py --workdir=runs/vit_b_1600ep

Published: 84.0 % ImageNet-1K top-1 after fine-tuning, at 0.7 GPU hours per epoch on one V100.
Batch size, learning rate, warm-up and bins follow the supplement (Table 3, section C). The authors' release differs in:
    9 orientation bins instead of 18      --config.model.target.bins=9
    a minimum learning rate of 1e-6       --config.schedule.min_lr=1e-6
"""

from localmim_jax.configs.parts import pretrain, vit


def get_config():
    config = pretrain(vit("vit_b"))
    config.num_epochs = 1600.0
    config.schedule.warmup_epochs = 40.0
    config.eval.reconstruction.every_epochs = 100.0
    return config
