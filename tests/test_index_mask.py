"""Masks of every depth and mode: the values that the file stores, or one line."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from localmim_jax.data.decode import DecodeError
from localmim_jax.data.index_mask import decode_indices

GRAY, RGB, PALETTE, GRAY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6  # PNG's color types


def png(values, depth, color=GRAY, palette=()):
    """A PNG of [h, w] or [h, w, c] numbers at a bit depth, written by hand: Pillow writes few of them."""
    h, w = values.shape[:2]
    bits = np.unpackbits(values.astype(">u2").reshape(h, -1, 1).view(np.uint8), axis=-1)[..., 16 - depth :]
    rows = np.packbits(bits.reshape(h, -1), axis=1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    chunks = [(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, color, 0, 0, 0))]
    chunks += [(b"PLTE", bytes(palette))] if palette else []
    chunks += [(b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def numbers(depth, shape=(5, 7)):
    return np.random.default_rng(depth).integers(0, 2**depth, shape)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_gray_gives_what_is_stored(depth):
    np.testing.assert_array_equal(decode_indices(png(numbers(depth), depth)), numbers(depth))


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_palette_gives_indices_even_where_its_colors_are_gray(depth):
    for palette in (range(3 * 2**depth), np.repeat(np.arange(2**depth), 3), [7, 7, 7] * 2**depth):
        data = png(numbers(depth), depth, PALETTE, [int(value) % 256 for value in palette])
        np.testing.assert_array_equal(decode_indices(data), numbers(depth))


@pytest.mark.parametrize(("color", "channels"), [(RGB, 3), (GRAY_ALPHA, 2), (RGB_ALPHA, 4)])
def test_gray_in_colors_is_read_and_colors_are_not(color, channels):
    values = np.repeat(numbers(8)[..., None], channels, axis=2)
    if channels in (2, 4):
        values[..., -1] = 255
    np.testing.assert_array_equal(decode_indices(png(values, 8, color)), numbers(8))
    with pytest.raises(DecodeError, match=r"this has colors \(.*16"):  # Pillow would keep 8 of the 16 bits
        decode_indices(png(values, 16, color))
    values[2, 3, -1] ^= 1
    with pytest.raises(DecodeError, match=r"this has (colors|transparency)"):
        decode_indices(png(values, 8, color))


def test_bmp_is_read_and_what_may_have_lost_its_values_is_not():
    image = Image.fromarray(numbers(8).astype(np.uint8))
    for kind in ("BMP", "PNG"):
        out = io.BytesIO()
        image.save(out, kind)
        np.testing.assert_array_equal(decode_indices(out.getvalue()), numbers(8))
    for kind in ("JPEG", "WEBP", "GIF"):
        out = io.BytesIO()
        image.save(out, kind)
        with pytest.raises(DecodeError, match="store it as PNG"):
            decode_indices(out.getvalue())
    header = struct.pack("<IiiHHIIiiII", 40, 4, 1, 1, 4, 0, 4, 0, 0, 16, 0)
    palette = b"".join(bytes([i, i, i, 0]) for i in range(16))
    four_bits = b"BM" + struct.pack("<IHHI", 122, 0, 0, 118) + header + palette + b"\x12\x34\0\0"
    with pytest.raises(DecodeError, match="store it as PNG"):  # Pillow reads it as 8 bits
        decode_indices(four_bits)
