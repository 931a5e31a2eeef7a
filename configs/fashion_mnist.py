r"""A small ViT pre-trained on Fashion-MNIST: 60,000 photographs of clothing, 28 x 28 gray pixels.

    python main.py --config=configs/fashion_mnist.py --workdir=runs/fashion_mnist \
        --config.data.name=idx:/data/fashion-mnist

The folder contains the four files of the original release (github.com/zalandoresearch/fashion-mnist). On Debian and
Ubuntu, `apt install dataset-fashion-mnist` installs them in the folder that `data.name` has by default.

TFDS has the dataset too: --config.data.name=tfds:fashion_mnist --config.eval.knn.name=tfds:fashion_mnist

Published: nothing for this model. Images are enlarged to 64 x 64, an 8 x 8 grid of patches of 8 px, and HOG has cells
of 2, 4, 8 and 16 px.
"""

from localmim_jax.configs.parts import pretrain

from localmim_jax.configs import quickstart


def get_config():
    config = pretrain(quickstart.encoder(depth=4))
    config.image_size = (64, 64)
    config.batch_size = 64
    config.num_epochs = 2.0

    config.data.name = "idx:/usr/share/datasets/fashion-mnist"
    config.data.channels = 1
    config.data.mean = (0.286,)
    config.data.std = (0.353,)
    config.data.crop_scale = (0.5, 1.0)

    config.model.taps = (1, 2, 3, 4)
    config.model.target.bins = 9
    config.model.decoder.update({"width": 32, "num_heads": 2})

    config.schedule.base_lr = 4e-3
    config.schedule.warmup_epochs = 0.2
    config.checkpoint.every_epochs = 0.25
    config.log.every_steps = 100
    knn = {"enabled": True, "raw_pixels": True, "name": config.data.name, "test_split": "test", "resize": 64}
    config.eval.knn.update({**knn, "max_train": 10000})
    config.eval.reconstruction.update({"every_epochs": 0.0, "resize": 64})
    return config
