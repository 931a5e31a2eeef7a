"""Index masks: images whose pixels are class numbers, read as the file stores them."""

from typing import Any

import numpy as np

from localmim_jax.data.decode import DecodeError, guarded, opened

# Pillow stretches gray of 2 and 4 bits to 0..255, which would turn class 1 into 85 or 17. By raw mode, the factor.
_STRETCHED = {"L;2": 85, "L;4": 17}
_NUMBERS = ("1", "L", "P", "I", "I;16", "I;16B")
_COLORS = ("RGB", "RGBA", "LA")


def decode_indices(data: bytes) -> np.ndarray:
    """The values of an index mask as the file stores them, whatever its bit depth: int32 [h, w].

    A palette gives its indices, not its colors. Gray in RGB, RGBA or LA of 8 bits (three equal channels, opaque)
    gives the gray value.

    Raises:
        DecodeError: it cannot be decoded, it has colors or transparency, or its format may have changed the values.
    """
    image = opened(data)
    if image.format not in ("PNG", "BMP"):  # writers of GIF renumber the palette
        raise DecodeError(f"a mask in {image.format} may have lost its values: store it as PNG")
    raw_mode, mode = _raw_mode(image), image.mode
    values = np.asarray(guarded(lambda: image.load() and image))
    if mode in _NUMBERS:
        if image.format == "BMP" and mode == "L" and data[28:30] != b"\x08\x00":  # Pillow reads 4 bits as 8 here
            raise DecodeError("a mask in BMP with a gray palette of less than 8 bits: store it as PNG")
        return values.astype(np.int32) // _STRETCHED.get(raw_mode, 1)
    if mode in _COLORS and "16" not in raw_mode and "15" not in raw_mode:  # Pillow keeps 8 bits of 16
        return _gray(values, mode)
    raise DecodeError(f"a mask has one channel of class numbers, and this has colors ({raw_mode or mode})")


def _raw_mode(image: Any) -> str:
    """How the file stores its pixels, in Pillow's words; "" where the format does not say."""
    if not image.tile:
        raise DecodeError("it has no pixels")
    first = image.tile[0][3]
    first = first[0] if isinstance(first, tuple) and first else first
    return first if isinstance(first, str) else ""


def _gray(values: np.ndarray, mode: str) -> np.ndarray:
    colors = len(mode.removesuffix("A"))
    if mode.endswith("A") and (values[..., -1] != 255).any():
        raise DecodeError(f"a mask has one channel of class numbers, and this has transparency ({mode})")
    if (values[..., :colors] != values[..., :1]).any():
        raise DecodeError(
            f"a mask has one channel of class numbers, and this has colors ({mode}): replace each color by its number"
        )
    return values[..., 0].astype(np.int32)
