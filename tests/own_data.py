"""Datasets, transforms and loggers as a user writes them in Python, and a recipe that is small enough for them."""

import os
import signal

import numpy as np
from skimage import data

from localmim_jax import Logger, augmentation, load_config
from localmim_jax.recipes.override import override


def photographs(count):
    """Crops of a photograph, uint8 [h, w, 3] of different sizes."""
    image, rng = data.astronaut(), np.random.default_rng(0)
    sizes = rng.integers(40, 60, (count, 2))
    places = rng.integers(0, 400, (count, 2))
    return [image[y : y + h, x : x + w] for (h, w), (y, x) in zip(sizes, places, strict=True)]


class Photographs:
    """The same with labels, as an object with `len` and `[i]`."""

    class_names = ("even", "odd")

    def __init__(self, count):
        self._images = photographs(count)

    def __len__(self):
        return len(self._images)

    def __getitem__(self, index):
        return {"image": self._images[index], "label": index % 2}


def small_config(**changes):
    """The quickstart for 32 x 32 px RGB images, with a tiny ViT and three steps."""
    config = load_config("quickstart")
    config.num_steps, config.batch_size = 3, 4
    config.data.channels, config.data.mean, config.data.std = 3, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    config.data.num_threads = 1
    config.model.update({"width": 32, "depth": 2, "num_heads": 1, "taps": (1, 2)})
    config.model.target.cells = (4, 8)
    config.model.decoder.update({"width": 16, "num_heads": 2})
    config.schedule.warmup_epochs = 0.0
    config.checkpoint.update({"every_steps": 0, "every_epochs": 0.0})
    config.log.every_steps = 1
    config.eval.knn.raw_pixels = False
    config.eval.reconstruction.num_images = 0
    if "rank" in config.eval:
        config.eval.rank.num_images = 0
    return override(config, [f"{key}={value}" for key, value in changes.items()])


def rotated(rng, example):
    """The recipe's own crop of an image that is turned by a random quarter."""
    turned = np.rot90(example["image"], rng.integers(4))
    return augmentation(small_config())(rng, {**example, "image": turned})


def everything_wrong(rng, example):
    """Not at the run's size."""
    return example


class Kept(Logger):
    """Keeps what a run reports."""

    def __init__(self):
        self.calls, self.values = [], {}

    def start(self, workdir, first_step):
        self.calls.append(("start", workdir.name, first_step))

    def config(self, values):
        self.values.update(values)

    def scalars(self, step, values):
        self.calls.append(("scalars", step, sorted(values)))

    def close(self, completed):
        self.calls.append(("close", completed))


class Stop(Logger):
    """Sends SIGTERM after a step, as a cluster does."""

    def __init__(self, step):
        self.step = step

    def scalars(self, step, values):
        if step == self.step and "loss" in values:
            os.kill(os.getpid(), signal.SIGTERM)


class Broken(Logger):
    """Fails at the first report."""

    def scalars(self, step, values):
        raise OSError("the server is gone")
