"""Images of more than 8 bits a channel: their values as stored, and which of them become black and white.

Such an image says how many bits a value takes, not how many its camera or detector fills: 12 bits in 16 come out nearly
black when the whole range is shown. `data.high_bit_depth` says what to do:

    ""             the range of the type: 0 to 65535 of 16 bits, 0 to 1 of floats, the least to the largest value of
                   signed and of 32-bit whole numbers
    "max"          0, or the least value if it is negative, to the largest value of some images of the training set
    "percentile"   the values that 0.1 % and 99.9 % of their pixels do not exceed: a few outliers do not count
    "BLACK:WHITE"  these two values, as in "0:4095"

A run replaces the second and the third by the values found, so that its config has them for evaluations and commands:
a model sees every image as it saw those of training. A dataset that the run's values do not suit is named in a warning,
and `eval.knn.high_bit_depth` and the commands' --high_bit_depth give it values of its own. Images of Python follow the
same rule, in Pillow's modes of 16 and 32 bits too. Values outside are cut off, between them 0 to 255 is linear.
"""

import dataclasses
import io
import math
import re

import numpy as np
from PIL import Image

from localmim_jax.errors import ConfigError

MEASURED = ("max", "percentile")

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?"
# Of 16-bit colors Pillow keeps the high byte. Read in the other byte order, the same file gives the low one.
_SWAPPED = {
    "RGB;16B": "RGB;16L",
    "RGB;16L": "RGB;16B",
    "RGBA;16B": "RGBA;16L",
    "RGBA;16L": "RGBA;16B",
}
_NATIVE = ";16L" if np.little_endian else ";16B"
_BITS, _PHOTOMETRIC, _PLANES, _SAMPLE_FORMAT = 258, 262, 284, 339  # tags of TIFF 6.0


@dataclasses.dataclass(frozen=True)
class Levels:
    """The values of a high-bit-depth image that become 0 and 255."""

    black: float
    white: float

    def __str__(self) -> str:
        return f"{self.black:.9g}:{self.white:.9g}"


@dataclasses.dataclass(frozen=True)
class Values:
    """What a high-bit-depth image stores.

    Attributes:
        values: [h, w] or [h, w, 3], of any real dtype.
        full: the range of its type.
        kind: of the type, for messages, as in "16-bit".
        inverted: whether the smallest value is white.
        alpha: uint8 [h, w]; None without.
    """

    values: np.ndarray
    full: Levels
    kind: str
    inverted: bool = False
    alpha: np.ndarray | None = None

    def image(self, levels: Levels | None) -> Image.Image:
        """8 bits a channel: "L", "RGB" or "RGBA". None: the range of the type."""
        pixels = to_uint8(self.values, levels or self.full)
        if self.inverted:
            pixels = 255 - pixels
        if self.alpha is not None:
            pixels = np.dstack([pixels, self.alpha])
        return Image.fromarray(pixels)


def parse(rule: str) -> Levels | None:
    """The levels that a rule names; None for the range of the type, and for rules that are still to be measured.

    Raises:
        ConfigError: it is no rule.
    """
    if not rule or rule in MEASURED:
        return None
    match = re.fullmatch(rf"({_NUMBER}):({_NUMBER})", rule, re.IGNORECASE)
    levels = Levels(*map(float, match.groups())) if match else Levels(0, 0)
    if not (levels.black < levels.white and math.isfinite(levels.white - levels.black)):
        raise ConfigError(
            f"data.high_bit_depth is {rule!r}; it must be '' (the range of the type), max, percentile, or black and "
            "white as in 0:4095"
        )
    return levels


def to_uint8(values: np.ndarray, levels: Levels) -> np.ndarray:
    """Values with `levels.black` at 0 and `levels.white` at 255, rounded; not a number becomes 0."""
    if (levels.black, levels.white) == (0, 65535) and values.dtype.kind in "iu":
        return ((np.clip(values, 0, 65535).astype(np.uint32) + 128) // 257).astype(np.uint8)
    scaled = (values.astype(np.float64) - levels.black) * (255 / (levels.white - levels.black))
    return (np.clip(np.nan_to_num(scaled, nan=0.0), 0, 255) + 0.5).astype(np.uint8)


def is_single(image: Image.Image) -> bool:
    """Whether an image is in one of Pillow's modes of 16 and 32 bits, which have one channel."""
    return image.mode == "F" or image.mode.startswith("I")


def is_deep(image: Image.Image) -> bool:
    """Whether an image that Pillow has opened, and not loaded, has more than 8 bits a channel in its file."""
    return is_single(image) or _raw_mode(image) in (*_SWAPPED, "LA;16B")


def read_values(image: Image.Image, data: bytes) -> Values:
    """What the image stores, which `is_deep` has found in the encoded `data`. Raises what Pillow raises."""
    if is_single(image):
        return single_values(image)
    raw = _raw_mode(image)
    image.load()
    again = Image.open(io.BytesIO(data), formats=(image.format or "PNG",))
    tile = again.tile[0]
    swapped = "RGBA" if raw == "LA;16B" else _SWAPPED[raw]  # of gray with alpha, all four bytes one after the other
    arguments = (swapped, *tile[3][1:]) if isinstance(tile[3], tuple) else swapped
    again.tile = [type(tile)(*tile[:3], arguments)]
    again.load()
    high, low = np.asarray(image).astype(np.uint16), np.asarray(again)
    alpha: np.ndarray | None
    if raw == "LA;16B":
        gray = low[:, :, :1].astype(np.uint16) * 256 + low[:, :, 1:2]
        values, alpha = np.repeat(gray, 3, axis=2), low[:, :, 2]
    else:
        values = high[:, :, :3] * 256 + low[:, :, :3]
        alpha = high[:, :, 3].astype(np.uint8) if high.shape[2] == 4 else None
    return Values(values, Levels(0, 65535), "16-bit", alpha=alpha)


def single_values(image: Image.Image) -> Values:
    """What an image of one channel stores, in Pillow's modes of 16 and 32 bits. Raises what Pillow raises."""
    image.load()
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    inverted = tags.get(_PHOTOMETRIC) == 0
    if image.mode == "F":
        return Values(values, Levels(0, 1), "floating-point", inverted)
    full, kind = Levels(0, 65535), "16-bit"
    if image.mode == "I" and image.format == "TIFF":  # the other formats hold 16 bits in this mode
        bits, signed = tags.get(_BITS, (32,))[0], tags.get(_SAMPLE_FORMAT, (1,))[0] == 2
        if not signed:
            values = values.view(np.uint32)
        full = Levels(-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else Levels(0, 2.0**bits - 1)
        kind = f"{'signed ' if signed else ''}{bits}-bit"
    return Values(values, full, kind, inverted)


def misread(image: Image.Image) -> str:
    """Why Pillow would give other pixels than the file has, without an error; "" where it would not."""
    tags = getattr(image, "tag_v2", {})
    planes = tags.get(_PLANES) == 2 and len(tags.get(_BITS, ())) > 1 and max(tags[_BITS]) > 8
    return "its 16-bit channels are stored in planes: save the TIFF with its channels together" if planes else ""


def _raw_mode(image: Image.Image) -> str:
    """How Pillow is to read the file's pixels, as in "RGB;16B"; "" where it does not say."""
    tile = getattr(image, "tile", None)  # of an image from a file alone
    if image.format not in ("PNG", "TIFF") or not tile:
        return ""
    arguments = tile[0][3]
    raw = arguments[0] if isinstance(arguments, tuple) else arguments
    return str(raw).replace(";16N", _NATIVE)
