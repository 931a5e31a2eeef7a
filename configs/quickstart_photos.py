"""A small ViT pre-trained on tiles of photographs from installed packages: minutes on two CPU cores.

    python main.py --config=configs/quickstart_photos.py --workdir=runs/quickstart_photos

Published: nothing. Expect: the loss of each scale falls, and the drawn reconstructions show edges that continue into
the masked patches. (For photographs outside the training set, use localmim visualize.)
Images of 64 px are cut into 8 x 8 patches of 8 px, and HOG has cells of 2, 4, 8 and 16 px.
"""

from localmim_jax.configs.parts import pretrain

from localmim_jax.configs import quickstart


def get_config():
    config = pretrain(quickstart.encoder())
    config.image_size = (64, 64)
    config.batch_size = 32
    config.num_epochs = 20.0

    config.data.name = "photos"

    config.model.taps = (1, 2, 5, 6)  # ViT-B's 2, 4, 10, 12 at half the depth
    config.model.target.bins = 9
    config.model.decoder.update({"width": 64, "num_heads": 4})

    config.schedule.base_lr = 8e-3
    config.schedule.warmup_epochs = 2.0
    config.checkpoint.every_epochs = 5.0
    config.log.every_steps = 100
    config.eval.rank.update({"every_epochs": 0.0, "resize": 64})
    config.eval.reconstruction.update({"num_images": 6, "every_epochs": 0.0, "resize": 64})
    return config
