"""Pre-training in which everything is as small as it gets, for tests that run `main.py` as a process."""

from localmim_jax.configs import parts


def get_config():
    config = parts.pretrain(parts.vit("vit_b"))
    config.image_size = (16, 16)
    config.batch_size = 8
    config.num_steps = 12
    config.data.update({"name": "fake", "fake_examples": 32, "num_threads": 1})
    config.model.update({"patch_size": 8, "width": 32, "depth": 1, "num_heads": 2, "taps": (1,), "dtype": "float32"})
    config.model.target.cells = (8,)
    config.model.decoder.update({"width": 16, "num_heads": 2})
    config.schedule.update({"base_lr": 0.1, "warmup_steps": 2})
    config.checkpoint.update({"every_steps": 5, "every_epochs": 0.0})
    config.log.every_steps = 4
    config.eval.reconstruction.num_images = config.eval.rank.num_images = 0
    return config
