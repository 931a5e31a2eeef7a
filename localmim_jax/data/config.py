"""The input settings of a run: read once from the recipe, validated when made, the same on every host."""

import dataclasses
import math
import os

from localmim_jax.errors import ConfigError

NAMES = '"tfds:<name>", "folder:<path>", "photos", "digits" or "fake"; to detect "coco:<folder>", "shapes" or "fake"; '
NAMES += 'to segment "masks:<folder>", "tfds:<name>", "regions" or "fake"'

_OWN = ("photos", "digits", "shapes", "regions", "fake")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where images come from and how they are augmented.

    Attributes:
        name: "tfds:<name>", "folder:<path>", "photos", "digits" or "fake"; see `detection.sources` and
            `segmentation.sources` for theirs.
        image_size: (height, width) in pixels of the images in a batch.
        batch_size: global, over all hosts.
        seed: seed of order, crops and flips.
        split: "train", "validation", "test", or another split of the source.
        data_dir: where TFDS keeps its datasets; "" is its own default.
        channels: channels of the images in a batch. Files hold 1 (gray), 3 (RGB) or 4 (RGBA); arrays any number.
        crop_scale: fraction of the image's area that a training crop covers, (smallest, largest).
        crop_ratio: width / height of a training crop, (smallest, largest).
        flip: whether training images are flipped horizontally with probability 1/2.
        fast_decode: decode JPEGs at reduced size where the crop allows and resize bilinearly: faster, not pixel-exact.
        num_threads: threads that decode and augment; 0 is one per core. With `num_workers`, per process: 0 is one.
        num_workers: processes that make whole batches; 0 makes them in this process.
        prefetch_batches: batches made ahead of their use.
        max_bad_fraction: fraction of undecodable images above which the run stops.
        fake_examples: number of examples of the "fake" source.

    Raises:
        ConfigError: a value out of its range.
    """

    name: str
    image_size: tuple[int, int]
    batch_size: int
    seed: int = 0
    split: str = "train"
    data_dir: str = ""
    channels: int = 3
    crop_scale: tuple[float, float] = (0.2, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    fast_decode: bool = False
    num_threads: int = 0
    num_workers: int = 0
    prefetch_batches: int = 2
    max_bad_fraction: float = 0.01
    fake_examples: int = 1281167

    def __post_init__(self) -> None:
        for key in ("image_size", "crop_scale", "crop_ratio"):
            object.__setattr__(self, key, tuple(getattr(self, key)))
            if len(getattr(self, key)) != 2:
                raise ConfigError(f"{_full(key)} is {getattr(self, key)}: two values are needed")
        kind, _, rest = self.name.partition(":")
        known = (kind in ("tfds", "folder", "coco", "masks") and rest) or self.name in _OWN
        if not known:
            hint = f"write folder:{self.name} for a folder of images; " if os.path.isdir(self.name) else ""
            raise ConfigError(f"data.name is {self.name!r}; {hint}it must be {NAMES}")
        for key, minimum in (
            ("batch_size", 1),
            ("seed", 0),
            ("channels", 1),
            ("num_threads", 0),
            ("num_workers", 0),
            ("prefetch_batches", 1),
            ("fake_examples", 1),
        ):
            if getattr(self, key) < minimum:
                raise ConfigError(f"{_full(key)} is {getattr(self, key)}; it must be at least {minimum}")
        if min(self.image_size) < 1:
            raise ConfigError(f"image_size is {self.image_size}; height and width must be at least 1 pixel")
        if kind in ("folder", "photos", "digits") and self.channels not in (1, 3, 4):
            raise ConfigError(f"data.channels is {self.channels}; files hold 1 (gray), 3 (RGB) or 4 (RGBA)")
        smallest, largest = self.crop_scale
        if not 0 < smallest <= largest <= 1:
            raise ConfigError(
                f"data.crop_scale is {self.crop_scale}; fractions of the area, 0 < smallest <= largest <= 1"
            )
        narrowest, widest = self.crop_ratio
        if not 0 < narrowest <= widest < math.inf:
            raise ConfigError(f"data.crop_ratio is {self.crop_ratio}; width / height, 0 < smallest <= largest")
        if not 0 <= self.max_bad_fraction <= 1:
            raise ConfigError(f"data.max_bad_fraction is {self.max_bad_fraction}; it must be between 0 and 1")


def available_cores() -> int:
    """Number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _full(key: str) -> str:
    return key if key in ("image_size", "batch_size", "seed") else f"data.{key}"
