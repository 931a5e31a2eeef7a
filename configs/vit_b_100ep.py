"""LocalMIM, ViT-B/16, HOG targets, 100 epochs of ImageNet-1K.

    python main.py --config=configs/vit_b_100ep.py --workdir=runs/vit_b_100ep

Published: 83.3 % ImageNet-1K top-1 after fine-tuning (supplement, Table 1a, "local" and "multi-scale").
MAE with ViT-B/16 after 100 epochs, by lightly (docs.lightly.ai, benchmarks), top-1 in %: 81.3 after fine-tuning, 46.0
linear, 11.2 k-NN. Planned cost of this recipe: 4 EFLOP of the model (31 GFLOP an image), 4.7 hours of one H200 at the
measured rate (docs/benchmarks.md) if images are read as fast.
Batch size, learning rate, warm-up and bins follow the supplement (Table 3, section C). The authors' release differs in:
    9 orientation bins instead of 18      --config.model.target.bins=9
    a minimum learning rate of 1e-6       --config.schedule.min_lr=1e-6
The batch size of 2048 is global. If it does not fit in memory: --config.accum_steps=8, or --config.model.remat=true.
"""

from localmim_jax.configs.parts import pretrain, vit


def get_config():
    config = pretrain(vit("vit_b"))
    config.num_epochs = 100.0
    config.schedule.warmup_epochs = 10.0
    return config
