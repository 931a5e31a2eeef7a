"""Encoded images into pixels, with Pillow: upright, in the channels asked for, or an error that says why not.

A decoded image, `ImageLike`, is a `PIL.Image.Image` where Pillow has a mode for it, because Pillow crops and resizes it
without copies, and a uint8 array [h, w, c] otherwise. `to_array` converts either to an array.

A source gives an image as a `StoredImage`: encoded, a uint8 array, or an image of one channel of 16 or 32 bits that a
Python program has opened, whose values `data.high_bit_depth` has yet to make 8 bits.
"""

import io
import os
import stat
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from localmim_jax.data.levels import Levels, is_deep, is_single, misread, read_values, single_values
from localmim_jax.data.slow_reads import watched
from localmim_jax.errors import DataError

ImageLike: TypeAlias = Image.Image | np.ndarray
StoredImage: TypeAlias = bytes | np.ndarray | Image.Image

# No format that can start another program. Of a GIF, a TIFF and an MPO the first frame or page is read.
FORMATS: tuple[str, ...] = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
FORMATS += ("JPEG2000",) * bool(features.check_codec("jpg_2000"))
FORMATS += ("AVIF",) * bool("avif" in features.modules and features.check_module("avif"))
SUFFIXES: tuple[str, ...] = (".jpg", ".jpeg", ".jfif", ".jpe", ".mpo", ".png", ".webp", ".bmp", ".gif")
SUFFIXES += (".tif", ".tiff", ".ppm", ".pgm")
SUFFIXES += (".jp2",) * ("JPEG2000" in FORMATS) + (".avif",) * ("AVIF" in FORMATS)
MAX_PIXELS = 89_478_485  # where Pillow starts to warn of decompression bombs: a few kilobytes can claim gigapixels

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TIFF_KINDS = (
    "a TIFF that Pillow does not read: it reads 1, 3 or 4 channels of 8 or 16 bits, and one of 32 bits, whole or float"
)
_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISDIR, "a folder"),
)
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class DecodeError(DataError):
    """One image cannot be used. The text is the reason only: callers that know the image's name add it."""


class Encoded:
    """An encoded image whose header has been read: its size is known before its pixels are decoded.

    Attributes:
        height, width: in pixels, upright (after the EXIF orientation).

    Raises:
        DecodeError: not an image of a known format, truncated, or too large.
    """

    def __init__(self, data: bytes):
        self._image = opened(data)
        if reason := misread(self._image):
            raise DecodeError(reason)
        # Of 16-bit colors Pillow gives the high bytes.
        self._colors = data if is_deep(self._image) and not is_single(self._image) else None
        # Only JPEG has its EXIF data for certain before its pixels.
        if self._image.format not in ("JPEG", "MPO"):
            guarded(self._image.load)
        self._turn = _UPRIGHT.get(_orientation(self._image))  # newer versions of Pillow turn a TIFF themselves
        self.height, self.width = _upright_size(self._image)

    def pixels(self, channels: int, reduction: int = 1, levels: Levels | None = None) -> Image.Image:
        """The upright image in `channels` (1 gray, 3 RGB, 4 RGBA); may be called once.

        With `reduction` 2, 4 or 8, a JPEG is decoded at that fraction of its size, rounded up; other formats stay
        whole. `levels` are those of images with more than 8 bits a channel, None the range of their type.

        Raises:
            DecodeError: the data is truncated or damaged.
        """
        if channels not in _MODES:
            raise DecodeError(f"an encoded image has 1, 3 or 4 channels, not {channels}")
        image = self._image
        if reduction > 1 and image.format in ("JPEG", "MPO"):
            image.draft(None, (max(1, image.width // reduction), max(1, image.height // reduction)))

        def convert() -> Image.Image:
            image.load()
            if levels is not None and self._colors is not None:
                return _convert(read_values(opened(self._colors), self._colors).image(levels), channels)
            return _convert(image, channels, levels)

        converted = guarded(convert)
        return converted if self._turn is None else converted.transpose(self._turn)


def opened(data: bytes) -> Image.Image:
    """An encoded image whose header Pillow has read.

    Raises:
        DecodeError: not an image of a known format, truncated, or too large.
    """
    if not data:
        raise DecodeError("the file is empty")
    image = guarded(lambda: _open(data))
    if image.width * image.height > MAX_PIXELS:
        raise DecodeError(f"{image.width} x {image.height} is more than {MAX_PIXELS:,} pixels")
    return image


def decode(image: StoredImage, channels: int, levels: Levels | None = None) -> ImageLike:
    """An encoded image, a uint8 array [h, w, c] or [h, w], or one of Pillow's, upright with `channels` channels.

    Gray, CMYK and palette images are converted, and so are images of more than 8 bits a channel, by `levels` (None: the
    range of their type). Alpha is composited on white unless 4 channels are wanted.

    Raises:
        DecodeError: the data cannot be decoded, or an array has another number of channels.
    """
    if isinstance(image, np.ndarray):
        return _from_array(image, channels)
    if isinstance(image, Image.Image):
        return convert(image, channels, levels)
    return Encoded(image).pixels(channels, levels=levels)


def convert(image: Image.Image, channels: int, levels: Levels | None = None) -> Image.Image:
    """An image that Pillow has opened, upright, in `channels` (1 gray, 3 RGB, 4 RGBA).

    Raises:
        DecodeError: the data is damaged, or there is no such conversion.
    """
    if channels not in _MODES:
        raise DecodeError(f"a PIL image has 1, 3 or 4 channels, not {channels}")
    turn = _UPRIGHT.get(_orientation(image))
    converted = guarded(lambda: image.load() and _convert(image, channels, levels))
    return converted if turn is None else converted.transpose(turn)


def read_file(path: str | Path) -> bytes:
    """An encoded image, as the file has it.

    Raises:
        DecodeError: the file cannot be read, or is a pipe or a device, from which reading may never end.
    """
    try:
        with watched(path), open(_descriptor(path), "rb") as file:
            kind = what_it_is(os.fstat(file.fileno()).st_mode)
            if kind:
                raise DecodeError(f"it is {kind}, not a file")
            return file.read()
    except OSError as error:
        raise DecodeError(f"the file cannot be read ({error.strerror or type(error).__name__})") from error


def _descriptor(path: str | Path) -> int:
    """The file, opened for reading. A pipe would hold up a plain opening until somebody writes to it."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except BlockingIOError:  # another program has a lease on the file, as Samba has, and is asked to give it up
        if what_it_is(os.stat(path).st_mode):
            raise
        return os.open(path, os.O_RDONLY)


def what_it_is(mode: int) -> str:
    """ "" for the mode of a regular file, else what such a file is, as in "a named pipe"."""
    if stat.S_ISREG(mode):
        return ""
    return next((name for test, name in _KINDS if test(mode)), "no regular file")


def image_size(image: StoredImage) -> tuple[int, int]:
    """(height, width) in pixels, upright, of an encoded image, of which only the header is read, or of another.

    Raises:
        DecodeError: the header cannot be read.
    """
    if isinstance(image, np.ndarray):
        return image.shape[:2]
    if isinstance(image, Image.Image):
        return _upright_size(image)
    encoded = Encoded(image)
    return encoded.height, encoded.width


def to_array(image: ImageLike) -> np.ndarray:
    """uint8 [h, w, c] of a decoded image."""
    array = np.asarray(image)
    return array[:, :, None] if array.ndim == 2 else array


def size_of(image: ImageLike) -> tuple[int, int]:
    """(height, width) in pixels of a decoded image."""
    return image.shape[:2] if isinstance(image, np.ndarray) else (image.height, image.width)


def _from_array(array: np.ndarray, channels: int) -> ImageLike:
    if array.ndim == 2:
        array = array[:, :, None]
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != channels or 0 in array.shape:
        shape = " x ".join(map(str, array.shape))
        raise DecodeError(f"a uint8 array [h, w, {channels}] is needed, not {array.dtype} of {shape}")
    if channels == 1:
        return Image.fromarray(array[:, :, 0])
    return Image.fromarray(array) if channels == 3 else array


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        if data[:4] in _TIFF:
            raise ValueError(_TIFF_KINDS) from error
        raise


def _convert(image: Image.Image, channels: int, levels: Levels | None = None) -> Image.Image:
    mode = _MODES[channels]
    if is_single(image):
        image = single_values(image).image(levels)
    if channels != 4 and ("transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La")):
        image = image.convert("RGBA")
        page = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(page, image)
    return image if image.mode == mode else image.convert(mode)


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """(height, width) after the EXIF orientation."""
    width, height = image.size
    sideways = _orientation(image) in (5, 6, 7, 8)
    return (width, height) if sideways else (height, width)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 (upright) where there is none. Damaged metadata does not make an image unusable."""
    try:
        return image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:
        return 1


def guarded(read):
    """Runs a Pillow reader: any error that its parser raises becomes a DecodeError, for the image is damaged."""
    try:
        return read()
    except UnidentifiedImageError as error:
        raise DecodeError(f"not an image of a known format ({', '.join(FORMATS)})") from error
    except MemoryError:
        raise
    except Exception as error:
        raise DecodeError(" ".join(str(error).split()) or type(error).__name__) from error
