"""The input settings of a run: read once from the recipe, validated when made, the same on every host."""

import dataclasses
import math
import os

from localmim_jax.data.levels import parse
from localmim_jax.errors import ConfigError

NAMES = '"tfds:<name>", "folder:<path>", "idx:<folder>", "photos", "digits" or "fake"; '
NAMES += (
    'to detect "coco:<folder>", "shapes" or "fake"; to segment "masks:<folder>", "tfds:<name>", "regions" or "fake"'
)

_OWN = ("photos", "digits", "shapes", "regions", "fake")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where images come from and how they are augmented.

    Attributes:
        name: "tfds:<name>", "folder:<path>", "idx:<folder>", "photos", "digits" or "fake"; see `detection.sources` and
            `segmentation.sources` for theirs.
        image_size: (height, width) in pixels of the images in a batch.
        batch_size: global, over all hosts.
        seed: seed of order, crops and flips.
        split: "train", "validation", "test", or another split of the source.
        val_fraction: fraction of a folder's training images that is its split "val" and not trained on; see
            `data.holdout`.
        data_dir: where TFDS keeps its datasets; "" is its own default.
        channels: channels of the images in a batch. Files hold 1 (gray), 3 (RGB) or 4 (RGBA); arrays any number.
        crop_scale: fraction of the image's area that a training crop covers, (smallest, largest).
        crop_ratio: width / height of a training crop, (smallest, largest).
        flip: whether training images are flipped horizontally with probability 1/2.
        vertical_flip: whether training images are flipped vertically with probability 1/2.
        rotate90: whether training images, which must be square, are rotated by 0, 90, 180 or 270 degrees.
        color_jitter: strengths of random changes of (brightness, contrast, saturation, hue); see `data.color`.
        grayscale: probability that a training image loses its colors.
        fast_decode: decode JPEGs at reduced size where the crop allows and resize bilinearly: faster, not pixel-exact.
        num_threads: threads that decode and augment; 0 is one per core. With `num_workers`, per process: 0 is one.
        num_workers: processes that make whole batches; 0 makes them in this process.
        high_bit_depth: which values of images with more than 8 bits a channel are black and white; see `data.levels`.
        eval_interpolation: of the resizing of evaluated images, a filter of `data.augment.FILTERS`; bicubic in every
            recipe, and another one for some models of timm and Transformers.
        eval_squash: whether evaluated images are resized to the shape of `image_size`, their own proportions lost; also
            for models of others.
        prefetch_batches: batches made ahead of their use.
        max_bad_fraction: fraction of undecodable images above which the run stops.
        fake_examples: number of examples of the "fake" source.
        fake_classes: number of its classes; the dry run sets it where it has to do without the dataset.

    Raises:
        ConfigError: a value out of its range.
    """

    name: str
    image_size: tuple[int, int]
    batch_size: int
    seed: int
    split: str
    data_dir: str
    channels: int
    flip: bool
    num_threads: int
    num_workers: int
    prefetch_batches: int
    max_bad_fraction: float
    fake_examples: int
    # Keys that not every recipe has, and their values without effect there.
    val_fraction: float = 0.0
    crop_scale: tuple[float, float] = (1.0, 1.0)
    crop_ratio: tuple[float, float] = (1.0, 1.0)
    vertical_flip: bool = False
    rotate90: bool = False
    color_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    grayscale: float = 0.0
    fast_decode: bool = False
    high_bit_depth: str = ""
    eval_interpolation: str = "bicubic"
    eval_squash: bool = False
    fake_classes: int = 1000

    def __post_init__(self) -> None:
        for key, count in (("image_size", 2), ("crop_scale", 2), ("crop_ratio", 2), ("color_jitter", 4)):
            object.__setattr__(self, key, tuple(getattr(self, key)))
            if len(getattr(self, key)) != count:
                number = {2: "two", 4: "four"}[count]
                raise ConfigError(f"{_full(key)} is {getattr(self, key)}: {number} values are needed")
        kind, _, rest = self.name.partition(":")
        known = (kind in ("tfds", "folder", "idx", "coco", "masks", "python") and rest) or self.name in _OWN
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
            ("fake_classes", 1),
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
        for key in ("max_bad_fraction", "grayscale"):
            if not 0 <= getattr(self, key) <= 1:
                raise ConfigError(f"data.{key} is {getattr(self, key)}; it must be between 0 and 1")
        if self.rotate90 and self.image_size[0] != self.image_size[1]:
            raise ConfigError(f"data.rotate90 needs square images, and image_size is {self.image_size}: turn it off")
        self._check_colors()
        parse(self.high_bit_depth)
        if not 0 <= self.val_fraction < 1:
            raise ConfigError(f"data.val_fraction is {self.val_fraction}; it must be at least 0 and below 1")
        if self.val_fraction and kind not in ("folder", "fake"):
            raise ConfigError(
                f"data.val_fraction={self.val_fraction:g} divides a folder, and data.name is {self.name!r}: set it to 0"
                f"{' and take slices of the split, as in train[10%:] and train[:10%]' if kind == 'tfds' else ''}"
            )

    def _check_colors(self) -> None:
        *others, hue = self.color_jitter
        if not (all(0 <= strength < math.inf for strength in others) and 0 <= hue <= 0.5):
            raise ConfigError(
                f"data.color_jitter is {self.color_jitter}; strengths of brightness, contrast, saturation and hue "
                "of at least 0 are needed, and a hue of at most 0.5"
            )
        gray = self.channels == 1 and not (any(self.color_jitter[2:]) or self.grayscale)
        if (any(self.color_jitter) or self.grayscale) and self.channels != 3 and not gray:
            raise ConfigError(
                f"data.color_jitter and data.grayscale are for images of 3 channels, and data.channels is "
                f"{self.channels}: set them to 0 (gray images can change in brightness and contrast)"
            )


def available_cores() -> int:
    """Number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _full(key: str) -> str:
    return key if key in ("image_size", "batch_size", "seed") else f"data.{key}"
