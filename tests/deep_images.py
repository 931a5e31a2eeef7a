"""Real images of more than 8 bits a channel: scikit-image's photographs with the values of a 12-bit camera."""

import io
import struct
import zlib

import numpy as np
import tifffile
from skimage import data

SIZE = (40, 60)


def photograph(bits: int = 12) -> np.ndarray:
    """uint16 [40, 60, 3], a part of a photograph whose values fill 0 to 2^bits - 1."""
    image = data.astronaut()[60:100, 160:220].astype(np.float64)
    image = (image - image.min()) / (image.max() - image.min())
    return np.round(image * (2**bits - 1)).astype(np.uint16)


def png(values: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel with 1, 2 (gray and alpha), 3 or 4 channels, which Pillow cannot write."""
    h, w, channels = values.shape

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", w, h, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def tiff(values: np.ndarray, **options) -> bytes:
    """A TIFF as other programs write it."""
    photometric = "rgb" if values.ndim == 3 and values.shape[-1] in (3, 4) else "minisblack"
    file = io.BytesIO()
    tifffile.imwrite(file, values, **{"photometric": photometric, **options})
    return file.getvalue()
