"""Images made smaller or encoded in another way, before training reads them many times."""

import io
from typing import Any

import numpy as np
from PIL import Image

from localmim_jax.data.augment import resize
from localmim_jax.data.decode import decode
from localmim_jax.errors import ConfigError

ENCODINGS = ("keep", "jpeg", "raw")


class Converter:
    """bytes of an image -> bytes of the smaller or differently encoded one.

    Args:
        short_side: pixels; larger images are shrunk to it, 0 leaves the size.
        encoding: "keep" (the bytes as they are), "jpeg" (only what was shrunk is encoded again), "raw" (BMP, that is
            pixels), or "" for what `short_side` calls for.
        quality: of JPEG.
        channels: 1 or 3.

    Raises:
        ConfigError: a value out of range, or "keep" with a `short_side`.
    """

    def __init__(self, short_side: int = 0, encoding: str = "", quality: int = 95, channels: int = 3):
        self.short_side, self.quality, self.channels = short_side, quality, channels
        self.encoding = encoding or ("jpeg" if short_side else "keep")
        if self.encoding not in ENCODINGS:
            raise ConfigError(f"--encoding={encoding}: it must be one of {', '.join(ENCODINGS)}")
        if self.encoding == "keep" and short_side:
            raise ConfigError("--encoding=keep cannot shrink images: choose jpeg or raw, or leave out --short_side")
        if short_side < 0 or not 1 <= quality <= 100 or channels not in (1, 3):
            raise ConfigError(
                f"--short_side must be at least 0, --quality 1 to 100, --channels 1 or 3, and they are {short_side}, "
                f"{quality} and {channels}"
            )

    def __call__(self, data: bytes | np.ndarray) -> bytes:
        """Raises DecodeError for what cannot be decoded, also where the bytes would be kept."""
        image: Any = decode(data, self.channels)  # with 1 or 3 channels always Pillow's
        short = min(image.size)
        shrink = 0 < self.short_side < short
        if shrink:
            width, height = (self.short_side * side // short for side in image.size)
            image = resize(image, (height, width))
        if isinstance(data, bytes) and self.encoding != "raw" and not shrink:
            return data
        return self._encode(image)

    def _encode(self, image: Image.Image) -> bytes:
        file = io.BytesIO()
        if self.encoding == "raw":
            image.save(file, "BMP")
        elif self.encoding == "jpeg":
            image.save(file, "JPEG", quality=self.quality)
        else:
            image.save(file, "PNG")
        return file.getvalue()
