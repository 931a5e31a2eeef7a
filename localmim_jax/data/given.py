"""Images that a Python program hands over: arrays, PIL images, encoded bytes or paths, alone or in examples."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from localmim_jax.data.decode import DecodeError, StoredImage, convert, read_file, to_array
from localmim_jax.data.levels import is_deep, is_single
from localmim_jax.data.source import Source
from localmim_jax.errors import DataError

_FILE_CHANNELS = (1, 3, 4)  # gray, RGB, RGBA, between which images are converted
_TOLERANCE = 1e-3  # by which resized floats may leave 0..1


class GivenImages(Source):
    """Images of any size, without labels, as a source of `channels` channels.

    Args:
        images: see `as_images`.
        channels: of the images that are read.

    Raises:
        DataError: there is none.
    """

    name = "images"
    mixed = True

    def __init__(self, images: Any, channels: int):
        self._images = as_images(images, channels)
        self._channels = channels
        if not len(self._images):
            raise DataError("no image given: an empty list has no features")

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": image_of(self._images[index], self._channels)}

    def key_of(self, index: int) -> str:
        image = self._images[index]
        return os.fspath(image) if isinstance(image, str | os.PathLike) else f"{index}"

    def name_of(self, index: int) -> str:
        key = self.key_of(index)
        return f"image {index}" if key == f"{index}" else key


def as_images(images: Any, channels: int) -> Sequence[Any]:
    """One image or several as a sequence of images that `image_of` takes.

    Args:
        images: an array [n, h, w, c] or [h, w, c]; a path, encoded bytes or a PIL image; or a sequence or an iterable
            of images, whose sizes may differ.
        channels: of the images that are wanted, which tells an array [h, w, c] from others.

    Raises:
        DataError: an array with other axes, or something that is no image.
    """
    if isinstance(images, str | os.PathLike | bytes | Image.Image | Mapping):
        return [images]
    if hasattr(images, "shape"):
        shape = tuple(images.shape)
        if len(shape) == 4:
            return images
        if len(shape) == 3 and shape[2] in {*_FILE_CHANNELS, channels}:
            return [images]
        raise DataError(
            f"an array of shape {list(shape)} is given; images are [n, h, w, c] or [h, w, c]: gray images need a last "
            "axis too, as in images[..., None], and arrays with channels first are transposed"
        )
    if hasattr(images, "__len__") and hasattr(images, "__getitem__"):
        return images
    if isinstance(images, Iterable):
        return list(images)
    raise DataError(f"a {type(images).__name__} is given; images are arrays, PIL images or paths")


def image_of(image: Any, channels: int) -> StoredImage:
    """One image as a source gives it: encoded, a uint8 array [h, w, channels], or one of Pillow's with a deep channel.

    Args:
        image: encoded bytes; the path of a file; a PIL image; an array [h, w, c] or [h, w], uint8 or floating in 0..1,
            which is rounded to 8 bits as a file would be; or a mapping with one of these as "image".
        channels: gray, RGB and RGBA are converted to each other.

    Raises:
        DecodeError: it is none of these; the text is the reason only.
    """
    if isinstance(image, Mapping):
        if "image" not in image:
            raise DecodeError(f"the example has no 'image', only {', '.join(map(str, image)) or 'nothing'}")
        image = image["image"]
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | os.PathLike):
        path = os.path.expanduser(os.fspath(image))
        if os.path.isdir(path):
            raise DecodeError(f"it is a folder: name the images in it, for example {path}/*.jpg")
        return read_file(path)
    if isinstance(image, Image.Image):
        return _of_pillow(image, channels)
    try:
        array = np.asarray(image)
    except Exception as error:  # whatever the object's own conversion raises
        raise DecodeError(f"a {type(image).__name__} cannot be made an array ({error})") from error
    return _in_channels(_in_bytes(array), channels)


def _of_pillow(image: Image.Image, channels: int) -> StoredImage:
    """Values of more than 8 bits stay as they are: whoever reads the source makes them 8, by `data.high_bit_depth`."""
    if is_single(image):
        return image
    file = getattr(image, "fp", None)
    if file is not None and is_deep(image):  # 16-bit colors, of which Pillow gives 8 bits; not loaded yet
        try:
            file.seek(0)
            return file.read()
        except (OSError, ValueError) as error:
            raise DecodeError(f"the file of the PIL image cannot be read again ({error})") from error
    return to_array(convert(image, channels))


def _in_bytes(array: np.ndarray) -> np.ndarray:
    """uint8 [h, w, c]."""
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise DecodeError(f"its shape is {list(array.shape)}; an image is [h, w, c] or [h, w]")
    array = array[:, :, None] if array.ndim == 2 else array
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        raise DecodeError(f"its values are of type {array.dtype}; uint8, or floats in 0..1, are needed")
    values = array.astype(np.float32)
    low, high = float(values.min()), float(values.max())
    if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):  # also where a value is NaN
        raise DecodeError(f"its floats are from {low:g} to {high:g}; they must be in 0..1, not yet normalized")
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def _in_channels(array: np.ndarray, channels: int) -> np.ndarray:
    found = array.shape[2]
    if found == channels:
        return np.ascontiguousarray(array)
    if not {found, channels} <= set(_FILE_CHANNELS):
        hint = "; channels come last" if array.shape[0] == channels else ""
        raise DecodeError(f"it has {found} channels (its shape is {list(array.shape)}), not {channels}{hint}")
    return to_array(convert(Image.fromarray(array[:, :, 0] if found == 1 else array), channels))
