"""A hundred steps of ViT-B/16 pre-training on generated images, to measure the speed of the training step.

    python main.py --config=configs/fake_data_benchmark.py --workdir=runs/fake_data_benchmark

Published: nothing. No images are read or decoded. The log shows images/s and the fraction of time spent waiting for
data. Try --config.batch_size=32, 48, 64, 128 and 256 to find the fastest (as in section B of the supplement).
"""

from localmim_jax.configs.parts import pretrain, vit


def get_config():
    config = pretrain(vit("vit_b"))
    config.batch_size = 64
    config.num_steps = 100
    config.data.name = "fake"
    config.schedule.warmup_steps = 10
    config.checkpoint.every_epochs = 0.0
    config.eval.reconstruction.num_images = config.eval.rank.num_images = 0
    config.log.every_steps = 10
    return config
