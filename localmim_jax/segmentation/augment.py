"""From an image and its mask to arrays of fixed shapes: random scale, crop, flip and colors; whole images to evaluate.

Image and mask go through one geometry: a crop of the resized image, whose pixels are interpolated and whose labels are
those of the nearest pixels, both with pixels taken as squares. Only the crop is ever resized.
"""

import dataclasses
from typing import Any

import numpy as np
from PIL import Image

from localmim_jax.data.augment import BILINEAR, resize
from localmim_jax.data.decode import DecodeError, decode, size_of, to_array
from localmim_jax.errors import ConfigError
from localmim_jax.segmentation.numbering import IGNORED
from localmim_jax.segmentation.source import sizes_differ

Size = tuple[int, int]  # height, width

_TRIES = 10  # crops drawn before one with too much of a single class is accepted


@dataclasses.dataclass(frozen=True)
class Distortion:
    """Random changes of brightness, contrast, saturation and hue, each with probability one half; 0 turns one off.

    The contrast changes before or after saturation and hue, with probability one half each.

    Attributes:
        brightness: maximum change, of 255.
        contrast: the factor is drawn from 1 - contrast to 1 + contrast.
        saturation: the factor is drawn from 1 - saturation to 1 + saturation.
        hue: maximum change, in degrees.

    Raises:
        ConfigError: a value is out of range.
    """

    brightness: float = 32.0
    contrast: float = 0.5
    saturation: float = 0.5
    hue: float = 36.0

    def __post_init__(self) -> None:
        for name in ("brightness", "hue"):
            if getattr(self, name) < 0:
                raise ConfigError(f"data.{name} is {getattr(self, name)}; it must not be negative")
        for name in ("contrast", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"data.{name} is {getattr(self, name)}; it must be from 0 to 1")

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [h, w, 3] -> the same, changed."""
        draws, yes = rng.uniform(-1, 1, 4), rng.random(5) < 0.5
        brightness, contrast, saturation, hue = np.where(yes[:4], draws, 0.0)
        image = linear(image, 1.0, brightness * self.brightness)
        if yes[4]:
            image = linear(image, 1 + contrast * self.contrast)
        image = turn(image, 1 + saturation * self.saturation, hue * self.hue)
        return image if yes[4] else linear(image, 1 + contrast * self.contrast)


def linear(image: np.ndarray, factor: float, shift: float = 0.0) -> np.ndarray:
    """uint8 image * factor + shift, rounded and kept within 0 to 255."""
    if factor == 1 and shift == 0:
        return image
    table = np.clip(np.rint(np.arange(256) * factor + shift), 0, 255).astype(np.uint8)
    return table[image]


def turn(image: np.ndarray, saturation: float, hue: float) -> np.ndarray:
    """uint8 [h, w, 3] with HSV's saturation times a factor, at most full, and its hue turned by so many degrees."""
    if saturation == 1 and hue == 0:
        return image
    values = np.asarray(Image.fromarray(image).convert("HSV")).astype(np.float32)
    values[..., 0] = (values[..., 0] + hue * (256 / 360)) % 256
    values[..., 1] = np.minimum(values[..., 1] * saturation, 255)
    turned = (np.rint(values).astype(np.int32) & 255).astype(np.uint8)  # a hue of 256 is one of 0
    planes = [Image.fromarray(np.ascontiguousarray(turned[..., i])) for i in range(3)]
    return np.asarray(Image.merge("HSV", planes).convert("RGB"))


@dataclasses.dataclass(frozen=True)
class SegmentationTransform:
    """(example, rng) -> {"image": uint8 [h, w, 3], "mask": uint8 [h, w]} of one training example.

    The image is resized with its aspect ratio kept to fit `scale` times a factor drawn from `ratio_range`, and cropped
    to `image_size`. A crop in which one class has `max_class_fraction` of the labeled pixels or more is drawn again, up
    to ten times. A random horizontal flip, a change of colors, and padding at the bottom and right follow: `fill` for
    the image, "no class" for the mask.

    Attributes:
        image_size: (h, w) of the crop.
        scale: (long side, short side) in pixels; the resized image fits both and reaches one of them.
        ratio_range: (min, max) factor on `scale`.
        max_class_fraction: maximum fraction of labeled pixels in one class; 1 accepts any crop.
        flip: whether to flip with probability one half.
        distortion: change of colors.
        fill: color of the padding, which normalization takes to zero.

    Raises:
        ConfigError: a value is out of range.
    """

    image_size: Size
    scale: Size
    ratio_range: tuple[float, float]
    max_class_fraction: float
    flip: bool
    distortion: Distortion
    fill: tuple[int, int, int]

    def __post_init__(self) -> None:
        _require_scale("data.scale", self.scale)
        ratios = self.ratio_range
        if len(ratios) != 2 or not 0 < ratios[0] <= ratios[1]:
            raise ConfigError(f"data.ratio_range is {ratios}; give (min, max), both above 0, as in (0.5, 2.0)")
        if not 0 < self.max_class_fraction <= 1:
            raise ConfigError(f"data.max_class_fraction is {self.max_class_fraction}; it must be above 0 and at most 1")

    def __call__(self, example: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Raises DecodeError: the image cannot be decoded, or is not as large as its mask."""
        picture, mask = read(example)
        factor = rng.uniform(*self.ratio_range)
        (h, w), (long, short) = mask.shape, self.scale
        whole = fitted(h, w, (long * factor, short * factor))
        rows, columns = nearest(whole[0], h), nearest(whole[1], w)
        top, left, labels = self._crop(mask, rows, columns, rng)
        height, width = labels.shape
        down, across = h / whole[0], w / whole[1]
        box = (left * across, top * down, (left + width) * across, (top + height) * down)
        image = to_array(resize(picture, (height, width), box, BILINEAR))
        if self.flip and rng.random() < 0.5:
            image, labels = image[:, ::-1], labels[:, ::-1]
        image = self.distortion(image, rng)
        return {"image": pad(image, self.image_size, self.fill), "mask": pad(labels, self.image_size, IGNORED)}

    def _crop(
        self, mask: np.ndarray, rows: np.ndarray, columns: np.ndarray, rng: np.random.Generator
    ) -> tuple[int, int, np.ndarray]:
        """(top, left, labels) of a crop of the resized mask, whose rows and columns are these of the mask."""
        h, w = (min(side, len(places)) for side, places in zip(self.image_size, (rows, columns), strict=True))
        for _ in range(_TRIES):
            top, left = int(rng.integers(len(rows) - h + 1)), int(rng.integers(len(columns) - w + 1))
            labels = mask[np.ix_(rows[top : top + h], columns[left : left + w])]
            counts = np.bincount(labels.ravel(), minlength=IGNORED + 1)[:IGNORED]
            if self.max_class_fraction >= 1 or 0 < counts.max() < self.max_class_fraction * counts.sum():
                break
        return top, left, labels


@dataclasses.dataclass(frozen=True)
class SegmentationEvalTransform:
    """(example, canvas, rng) -> the whole image at every scale, and its mask as it is, padded to the canvas.

    {"image": uint8 [h, w, 3], "image_1" and so on for further ratios, "mask": uint8 [*canvas], "original": int32 [2]}.

    Attributes:
        scale: (long side, short side) in pixels; the resized image fits both and reaches one of them.
        ratios: factors on `scale`, one per resized image.
        multiple: sides of resized images are rounded to multiples of this, which leaves few shapes to compile; 1 keeps
            the aspect ratio exactly.

    Raises:
        ConfigError: a value is out of range.
    """

    scale: Size
    ratios: tuple[float, ...] = (1.0,)
    multiple: int = 1

    def __post_init__(self) -> None:
        _require_scale("eval.scale", self.scale)
        if not self.ratios or min(self.ratios) <= 0:
            raise ConfigError(f"eval.ratios is {self.ratios}; give at least one factor above 0, as in (1.0,)")
        if self.multiple < 1:
            raise ConfigError(f"eval.multiple is {self.multiple}; it must be at least 1")

    def sizes(self, size: Size) -> tuple[Size, ...]:
        """(h, w) at every ratio of an image of this size."""
        found = []
        for ratio in self.ratios:
            h, w = fitted(*size, (self.scale[0] * ratio, self.scale[1] * ratio))
            found.append((_rounded(h, self.multiple), _rounded(w, self.multiple)))
        return tuple(found)

    def images(self, picture: Any) -> dict[str, np.ndarray]:
        """The picture at every ratio."""
        return {
            f"image_{i}" if i else "image": to_array(resize(picture, size, None, BILINEAR))
            for i, size in enumerate(self.sizes(size_of(picture)))
        }

    def __call__(self, example: dict[str, Any], canvas: Size, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Raises DecodeError: the image cannot be decoded, or is not as large as its mask."""
        del rng
        picture, mask = read(example)
        original = np.array(mask.shape, np.int32)
        return {**self.images(picture), "mask": pad(mask, canvas, IGNORED), "original": original}


def read(example: dict[str, Any]) -> tuple[Any, np.ndarray]:
    """(picture, uint8 mask [h, w]) of an example. Raises DecodeError."""
    picture, mask = decode(example["image"], 3, example.get("levels")), example["mask"]
    if size_of(picture) != mask.shape:
        raise DecodeError(sizes_differ(size_of(picture), mask.shape))
    return picture, mask


def fitted(height: int, width: int, scale: tuple[float, float]) -> Size:
    """(h, w) of an image resized, its ratio kept, until its long or its short side is that of `scale` (long, short)."""
    factor = min(scale[0] / max(height, width), scale[1] / min(height, width))
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def nearest(new: int, old: int) -> np.ndarray:
    """The pixel of `old` in which the center of each of `new` pixels lies: int64 [new]."""
    return ((2 * np.arange(new) + 1) * old) // (2 * new)


def pad(array: np.ndarray, size: Size, value: Any) -> np.ndarray:
    """[h, w] or [h, w, c] in the top left of an array of (h, w) `size` that is `value` elsewhere."""
    if array.shape[:2] == tuple(size):
        return np.ascontiguousarray(array)
    canvas = np.empty((*size, *array.shape[2:]), array.dtype)
    canvas[:] = value
    canvas[: array.shape[0], : array.shape[1]] = array
    return canvas


def _require_scale(key: str, scale: Size) -> None:
    if len(scale) != 2 or min(scale) < 1:
        raise ConfigError(f"{key} is {scale}; give (long, short) side in pixels, as in (2048, 512)")


def _rounded(side: int, multiple: int) -> int:
    return max(1, round(side / multiple)) * multiple
