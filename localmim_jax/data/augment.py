"""From an example to a finished uint8 image: random crops for training, a center crop for evaluation.

A transform is a picklable callable (example, rng) -> dict of numpy values; the rng belongs to the example's position in
the run, so that the result does not depend on threads, processes or hosts. Crops are (top, left, height, width).
"""

import dataclasses
import math
from typing import Any

import numpy as np
from PIL import Image

from localmim_jax.data.color import NO_JITTER, Strengths, jitter, to_gray
from localmim_jax.data.config import DataConfig
from localmim_jax.data.decode import Encoded, ImageLike, StoredImage, decode, size_of, to_array
from localmim_jax.data.levels import Levels
from localmim_jax.errors import ConfigError

Crop = tuple[int, int, int, int]

FILTERS = {filter_.name.lower(): filter_ for filter_ in Image.Resampling}  # nearest, bilinear, bicubic, lanczos, ...
BICUBIC, BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR  # both antialiased when they shrink

_TRIES = 10
_LONG = 50  # a banner that would be resized to this many times the crop's area is not resized as a whole


@dataclasses.dataclass(frozen=True)
class TrainTransform:
    """RandomResizedCrop, bicubic with antialiasing, and a horizontal flip: supplement, Table 3.

    (example {"image", optional "label"}, rng) -> {"image": uint8 [h, w, c], optional "label": int32}.

    What the paper does not use follows in this order, each only where it is on, so that the random stream of the others
    does not depend on it: a vertical flip and a rotation by a multiple of 90 degrees, the symmetries of images without
    an up and down (Veeling et al., "Rotation equivariant CNNs for digital pathology", 2018), then changes of color
    (`data.color`).
    """

    image_size: tuple[int, int]
    channels: int
    crop_scale: tuple[float, float]
    crop_ratio: tuple[float, float]
    flip: bool
    fast_decode: bool = False
    vertical_flip: bool = False
    rotate90: bool = False
    color_jitter: Strengths = NO_JITTER
    grayscale: float = 0.0

    @classmethod
    def of(cls, config: DataConfig) -> "TrainTransform":
        return cls(**{field.name: getattr(config, field.name) for field in dataclasses.fields(cls)})

    def __call__(self, example: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
        image = self.crop(example["image"], rng, example.get("levels"))
        return {"image": to_array(image), **label_of(example)}

    def crop(self, data: StoredImage, rng: np.random.Generator, levels: Levels | None = None) -> ImageLike:
        """A random crop of an encoded image or array, resized to `image_size`, flipped and changed at random."""
        image: ImageLike
        if self.fast_decode and isinstance(data, bytes):
            image = self._fast_crop(Encoded(data), rng, levels)
        else:
            image = decode(data, self.channels, levels)
            # Crop first: nothing outside the crop bleeds in, and the whole image's memory is free for the resized one.
            image = crop(image, random_resized_crop(rng, *size_of(image), self.crop_scale, self.crop_ratio))
            image = resize(image, self.image_size)
        if self.flip and rng.random() < 0.5:
            image = flip(image)
        if self.vertical_flip and rng.random() < 0.5:
            image = rotate90(flip(image), 2)
        if self.rotate90:
            image = rotate90(image, int(rng.integers(4)))
        if any(self.color_jitter):
            image = jitter(image, self.color_jitter, rng)
        if self.grayscale and rng.random() < self.grayscale:
            image = to_gray(image)
        return image

    def _fast_crop(self, encoded: Encoded, rng: np.random.Generator, levels: Levels | None) -> ImageLike:
        top, left, height, width = random_resized_crop(
            rng, encoded.height, encoded.width, self.crop_scale, self.crop_ratio
        )
        shrink = min(height / self.image_size[0], width / self.image_size[1])
        reduction = next((step for step in (8, 4, 2) if step <= shrink), 1)
        image = encoded.pixels(self.channels, reduction, levels)
        across, down = image.width / encoded.width, image.height / encoded.height
        box = (left * across, top * down, (left + width) * across, (top + height) * down)
        return resize(image, self.image_size, box, BILINEAR)


@dataclasses.dataclass(frozen=True)
class EvalTransform:
    """The short side to `resize` pixels (bicubic), then the center `image_size`: torchvision's Resize and CenterCrop.

    Where `image_size` is not square, `resize` is for its short side and the image is made to cover the long one too.
    `resize` 0 keeps the usual proportion, 256 for 224. Another `interpolation` of `FILTERS`, and to `squash` the image
    to the shape of `image_size`, is for models of others. The rng is not used. Raises ConfigError for a negative
    `resize` and an unknown filter.
    """

    image_size: tuple[int, int]
    channels: int
    resize: int = 0
    interpolation: str = "bicubic"
    squash: bool = False

    @classmethod
    def of(cls, config: DataConfig, resize: int = 0) -> "EvalTransform":
        return cls(config.image_size, config.channels, resize, config.eval_interpolation, config.eval_squash)

    def __post_init__(self) -> None:
        if self.interpolation not in FILTERS:
            raise ConfigError(
                f"data.eval_interpolation is {self.interpolation!r}; it must be one of {', '.join(FILTERS)}"
            )
        if self.resize < 0:
            raise ConfigError(
                f"resize is {self.resize}: give the short side in pixels, or 0 for the default (256 for images of 224)"
            )

    def __call__(self, example: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
        image = decode(example["image"], self.channels, example.get("levels"))
        short_side = self.resize or round(min(self.image_size) * 256 / 224)
        image = center_crop(image, self.image_size, short_side, FILTERS[self.interpolation], self.squash)
        return {"image": to_array(image), **label_of(example)}


@dataclasses.dataclass(frozen=True)
class Passthrough:
    """The image as it is, for a source whose images already have their final size, such as the fake one."""

    def __call__(self, example: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {"image": example["image"], **label_of(example)}


def label_of(example: dict[str, Any]) -> dict[str, Any]:
    return {"label": np.int32(example["label"])} if "label" in example else {}


def random_resized_crop(
    rng: np.random.Generator, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> Crop:
    """A random crop of an image of `height` x `width` pixels, by the rules of torchvision's RandomResizedCrop.

    Area uniform in `scale` times the image's, log(width / height) uniform between the logs of `ratio`; after ten crops
    that do not fit, the largest centered one whose ratio is allowed.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(_TRIES):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(low, high))
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(rng.integers(0, height - crop_height + 1))
            left = int(rng.integers(0, width - crop_width + 1))
            return top, left, crop_height, crop_width
    if width / height < ratio[0]:
        crop_height, crop_width = min(height, round(width / ratio[0])), width
    elif width / height > ratio[1]:
        crop_height, crop_width = height, min(width, round(height * ratio[1]))
    else:
        crop_height, crop_width = height, width
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def center_crop(
    image: ImageLike, image_size: tuple[int, int], short_side: int, resample: Any = BICUBIC, squash: bool = False
) -> ImageLike:
    """The image resized to cover `image_size` with `short_side` pixels, and center-cropped.

    With `short_side` below the short side of `image_size`, the image just covers it. With `squash` it is resized to the
    shape of `image_size`, otherwise it keeps its proportions.
    """
    height, width = size_of(image)
    short = min(image_size)
    covering_height, covering_width = (round(side * max(short_side, short) / short) for side in image_size)
    if squash:
        new_height, new_width = covering_height, covering_width
    elif covering_height * width >= covering_width * height:  # the height decides the scale and is met exactly
        new_height, new_width = covering_height, max(image_size[1], covering_height * width // height)
    else:
        new_height, new_width = max(image_size[0], covering_width * height // width), covering_width
    top, left = round((new_height - image_size[0]) / 2), round((new_width - image_size[1]) / 2)
    if new_height * new_width > _LONG * image_size[0] * image_size[1]:
        down, across = height / new_height, width / new_width
        box = (left * across, top * down, (left + image_size[1]) * across, (top + image_size[0]) * down)
        return resize(image, image_size, box, resample)
    if (new_height, new_width) != (height, width):
        image = resize(image, (new_height, new_width), None, resample)
    return crop(image, (top, left, *image_size))


def resize(
    image: ImageLike,
    size: tuple[int, int],
    box: tuple[float, float, float, float] | None = None,
    resample: Any = BICUBIC,
) -> ImageLike:
    """The image, or a `box` of it (left, top, right, bottom), resized to `size` (height, width), with antialiasing."""
    if isinstance(image, Image.Image):
        return image.resize(size[::-1], resample, box)
    planes = [Image.fromarray(np.ascontiguousarray(image[:, :, i])) for i in range(image.shape[2])]
    return np.stack([np.asarray(plane.resize(size[::-1], resample, box)) for plane in planes], axis=-1)


def crop(image: ImageLike, box: Crop) -> ImageLike:
    """The pixels inside a crop that lies within the image."""
    top, left, height, width = box
    if isinstance(image, np.ndarray):
        return image[top : top + height, left : left + width]
    return image.crop((left, top, left + width, top + height))


def flip(image: ImageLike) -> ImageLike:
    """The image flipped horizontally."""
    if isinstance(image, np.ndarray):
        return image[:, ::-1]
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def rotate90(image: ImageLike, turns: int) -> ImageLike:
    """The image rotated counterclockwise by `turns` times 90 degrees; square ones keep their size."""
    if isinstance(image, np.ndarray):
        return np.rot90(image, turns)
    quarter, half, three = Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270
    return image if turns % 4 == 0 else image.transpose((quarter, half, three)[turns % 4 - 1])
