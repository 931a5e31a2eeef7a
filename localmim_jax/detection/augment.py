"""From an image with objects to padded arrays of fixed shapes: resizing, cropping, flipping, and masks cut to boxes.

All geometry is one rectangle of the original image, resized once: boxes and masks are taken from the annotations in the
original's coordinates, so that nothing is resampled twice.
"""

import dataclasses
import math
from typing import Any

import numpy as np
from PIL import Image

from localmim_jax.data.augment import BILINEAR, flip, resize
from localmim_jax.data.decode import DecodeError, ImageLike, decode, size_of, to_array
from localmim_jax.detection.source import Objects
from localmim_jax.errors import ConfigError

Box = tuple[float, float, float, float]  # left, top, right, bottom
Size = tuple[int, int]  # height, width


@dataclasses.dataclass(frozen=True)
class DetectionTransform:
    """(example, bucket, rng) -> arrays of one training example. Swin's recipe for COCO.

    With probability one half the whole image is resized so that its short side is one of `short_sides` and its long
    side at most `long_side`. Otherwise it is first resized to one of `crop_sides`, cropped to sides within
    `crop_range`, and resized in the same way. A result that does not fit the bucket, such as a portrait crop of a
    landscape image, is shrunk until it does. A random horizontal flip and padding at the bottom and right follow.

    Attributes:
        short_sides: short sides in pixels, of which one is drawn.
        long_side: maximum long side in pixels.
        crop_probability: probability of the second way.
        crop_sides: short sides before a crop, in pixels.
        crop_range: (min, max) height and width of a crop, in pixels of the resized image.
        flip: whether to flip with probability one half.
        max_objects: length of the lists of objects; no fewer than any image has.
        mask_size: cells along a side of a mask over its object's box.

    Raises:
        ConfigError: a value is out of range.
    """

    short_sides: tuple[int, ...]
    long_side: int
    crop_probability: float
    crop_sides: tuple[int, ...]
    crop_range: tuple[int, int]
    flip: bool
    max_objects: int
    mask_size: int

    def __post_init__(self) -> None:
        sides = (*self.short_sides, *self.crop_sides, *self.crop_range, self.long_side, self.mask_size)
        fits = self.short_sides and self.crop_sides and len(self.crop_range) == 2 and min(sides) >= 1
        if not fits or self.crop_range[0] > self.crop_range[1]:
            raise ConfigError(
                f"data.short_sides {self.short_sides}, crop_sides {self.crop_sides}, crop_range {self.crop_range}, "
                f"long_side {self.long_side} and mask_size {self.mask_size} must be positive, crop_range (min, max)"
            )
        if not 0 <= self.crop_probability <= 1:
            raise ConfigError(f"data.crop_probability is {self.crop_probability}; it must be in [0, 1]")

    def __call__(self, example: dict[str, Any], bucket: Size, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """{"image" uint8 [h, w, 3], "size" float32 [2] of what is no padding, "boxes" float32 [m, 4], "labels" int32
        [m] (-1 for padding), "masks" uint8 [m, s, s]}.

        Raises:
            DecodeError: the image or a mask cannot be read, or the image has another size than its annotation says.
        """
        picture = read(example)
        height, width = example["size"]
        region: Box = (0.0, 0.0, float(width), float(height))
        if rng.random() < self.crop_probability:
            region = self._crop(height, width, rng)
        short_side = self.short_sides[rng.integers(len(self.short_sides))]
        size = fitted(region[3] - region[1], region[2] - region[0], short_side, self.long_side, bucket)
        flipped = self.flip and rng.random() < 0.5
        resized = resize(picture, size, region, BILINEAR)
        image = pad(to_array(flip(resized) if flipped else resized), bucket)
        return {"image": image, "size": np.array(size, np.float32)} | self._truth(example, region, size, flipped)

    def _crop(self, height: int, width: int, rng: np.random.Generator) -> Box:
        """A crop in the original's coordinates."""
        scale = self.crop_sides[rng.integers(len(self.crop_sides))] / min(height, width)
        scale = min(scale, self.long_side / max(height, width))
        place = []
        for side in (width * scale, height * scale):
            low, high = (min(limit, side) for limit in self.crop_range)
            length = rng.uniform(low, high)
            start = rng.uniform(0, side - length)
            place.append((start / scale, (start + length) / scale))
        (left, right), (top, bottom) = place
        return left, top, min(right, width), min(bottom, height)

    def _truth(self, example: dict[str, Any], region: Box, size: Size, flipped: bool) -> dict[str, np.ndarray]:
        objects: Objects = example["objects"]
        boxes = np.zeros((self.max_objects, 4), np.float32)
        labels = np.full(self.max_objects, -1, np.int32)
        masks = np.zeros((self.max_objects, self.mask_size, self.mask_size), np.uint8)
        across, down = size[1] / (region[2] - region[0]), size[0] / (region[3] - region[1])
        count = 0
        for box, label, mask in zip(objects.boxes, objects.labels, objects.segmentations, strict=True):
            seen = (*np.maximum(box[:2], region[:2]), *np.minimum(box[2:], region[2:]))
            if seen[2] <= seen[0] or seen[3] <= seen[1]:
                continue
            drawn = rasterise(mask, seen, example["size"], self.mask_size)
            left, right = (seen[0] - region[0]) * across, (seen[2] - region[0]) * across
            if flipped:
                left, right, drawn = size[1] - right, size[1] - left, drawn[:, ::-1]
            boxes[count] = left, (seen[1] - region[1]) * down, right, (seen[3] - region[1]) * down
            labels[count], masks[count] = label, drawn
            count += 1
        return {"boxes": boxes, "labels": labels, "masks": masks}


@dataclasses.dataclass(frozen=True)
class DetectionEvalTransform:
    """(example, bucket, rng) -> {"image" uint8 [h, w, 3], "size" float32 [2], "original" int32 [2]}.

    The whole image with its short side at `short_side` and its long side at most `long_side`, or what fits the bucket.
    """

    short_side: int
    long_side: int

    def __post_init__(self) -> None:
        if min(self.short_side, self.long_side) < 1:
            raise ConfigError(f"eval.short_side {self.short_side} and eval.long_side {self.long_side} must be positive")

    def __call__(self, example: dict[str, Any], bucket: Size, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return self.of(read(example), bucket)

    def of(self, picture: ImageLike, bucket: Size) -> dict[str, np.ndarray]:
        """The same for a picture that is of no dataset."""
        height, width = size_of(picture)
        size = fitted(height, width, self.short_side, self.long_side, bucket)
        image = pad(to_array(resize(picture, size, None, BILINEAR)), bucket)
        return {"image": image, "size": np.array(size, np.float32), "original": np.array([height, width], np.int32)}


def read(example: dict[str, Any]) -> ImageLike:
    """The decoded image of an example.

    Raises:
        DecodeError: it cannot be decoded, or it is not as large as its annotation says.
    """
    picture = decode(example["image"], 3, example.get("levels"))
    found, told = size_of(picture), example["size"]
    if found != tuple(told):
        raise DecodeError(f"it is {found[0]} x {found[1]} pixels, and its annotation says {told[0]} x {told[1]}")
    return picture


def fitted(height: float, width: float, short_side: int, long_side: int, bucket: Size) -> Size:
    """(h, w) of an image scaled, ratio kept, to a short side of `short_side` with a long side of at most `long_side`,
    and no larger than the bucket."""
    scale = min(short_side / min(height, width), long_side / max(height, width))
    scale = min(scale, bucket[0] / height, bucket[1] / width)
    return max(1, min(bucket[0], round(height * scale))), max(1, min(bucket[1], round(width * scale)))


def pad(image: np.ndarray, bucket: Size) -> np.ndarray:
    """uint8 [h, w, c] with zeros at the bottom and right up to the bucket."""
    missing = bucket[0] - image.shape[0], bucket[1] - image.shape[1]
    return np.pad(image, ((0, missing[0]), (0, missing[1]), (0, 0)))


def rasterise(segmentation: Any, box: Box, image_size: Size, size: int) -> np.ndarray:
    """The part of an object's mask inside a box, as a square of cells that fills the box.

    Args:
        segmentation: COCO's polygons, or run lengths (compressed or not) over the image.
        box: in pixels of the image.
        image_size: (h, w) that run lengths must have.
        size: cells along a side.

    Returns:
        uint8 [size, size], 0 or 1.

    Raises:
        DecodeError: it is neither, or is damaged.
    """
    from pycocotools import mask as coco_mask

    left, top, right, bottom = map(float, box)
    try:
        if isinstance(segmentation, list):
            scale = np.array([size / (right - left), size / (bottom - top)])
            polygons = [
                ((np.asarray(points, np.float64).reshape(-1, 2) - (left, top)) * scale).ravel().tolist()
                for points in segmentation
                if len(points) >= 6
            ]
            return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, size, size)))
        if isinstance(segmentation["counts"], list):
            segmentation = coco_mask.frPyObjects(segmentation, *image_size)
        whole = coco_mask.decode(segmentation)
    except Exception as error:  # whatever a damaged mask makes pycocotools raise
        raise DecodeError(f"a mask cannot be read ({type(error).__name__}: {' '.join(str(error).split())})") from error
    # Only around the box: Pillow copies what it is given.
    corner = max(0, math.floor(left)), max(0, math.floor(top))
    part = whole[corner[1] : math.ceil(bottom), corner[0] : math.ceil(right)]
    inner = (
        left - corner[0],
        top - corner[1],
        min(right - corner[0], part.shape[1]),
        min(bottom - corner[1], part.shape[0]),
    )
    shrunk = Image.fromarray(part * np.uint8(255)).resize((size, size), Image.Resampling.BOX, inner)
    return (np.asarray(shrunk) >= 128).astype(np.uint8)
