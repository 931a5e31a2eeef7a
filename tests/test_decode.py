"""Real files of every kind, good and damaged, into pixels."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from localmim_jax.data.decode import FORMATS, DecodeError, Encoded, decode, size_of, to_array

RNG = np.random.default_rng(0)
# Smooth, so that a JPEG of it is close to it.
RAMP = np.stack(
    [
        np.broadcast_to(np.linspace(0, 255, 60), (40, 60)),
        np.broadcast_to(np.linspace(255, 0, 40)[:, None], (40, 60)),
        np.full((40, 60), 90),
    ],
    axis=-1,
).astype(np.uint8)
NOISE = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)


def encoded(image, form, **options) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(file, form, **options)
    return file.getvalue()


def pixels(data, channels=3):
    array = to_array(decode(data, channels))
    assert array.dtype == np.uint8
    assert array.shape[2] == channels
    return array


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("PPM", {}),
        ("JPEG2000", {}),
    ],
)
def test_lossless_files_come_back_exactly(form, options):
    np.testing.assert_array_equal(pixels(encoded(NOISE, form, **options)), NOISE)


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"subsampling": 0}),
        ("MPO", {}),
        pytest.param("AVIF", {}, marks=pytest.mark.skipif("AVIF" not in FORMATS, reason="Pillow was built without it")),
    ],
)
def test_lossy_files_are_close(form, options):
    assert np.abs(pixels(encoded(RAMP, form, quality=95, **options)).astype(int) - RAMP).mean() < 3


def test_gray_becomes_three_equal_channels():
    np.testing.assert_array_equal(pixels(encoded(NOISE[..., 0], "PNG")), np.repeat(NOISE[..., :1], 3, axis=-1))


def test_color_becomes_gray_by_its_luma():
    luma = NOISE @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(pixels(encoded(NOISE, "PNG"), 1)[..., 0], luma, atol=1)


def test_cmyk_jpeg_becomes_rgb():
    data = encoded(Image.fromarray(RAMP).convert("CMYK"), "JPEG", quality=95)
    assert Image.open(io.BytesIO(data)).mode == "CMYK"
    assert np.abs(pixels(data).astype(int) - RAMP).mean() < 4


def test_sixteen_bit_gray_keeps_its_range():
    values = np.array([[0, 200, 256, 32768, 40000, 60000, 65535]], np.uint16)
    data = encoded(values, "PNG")
    expected = np.round(values / 257).astype(np.uint8)
    np.testing.assert_array_equal(pixels(data, 1)[..., 0], expected)
    np.testing.assert_array_equal(pixels(data, 3)[..., 2], expected)


def test_palette_and_one_bit():
    palette = Image.new("P", (4, 2))
    palette.putpalette([255, 0, 0, 0, 200, 0])
    palette.putpixel((1, 0), 1)
    assert pixels(encoded(palette, "PNG"))[0, :2].tolist() == [[255, 0, 0], [0, 200, 0]]
    one_bit = Image.new("1", (2, 1))
    one_bit.putpixel((1, 0), 1)
    assert pixels(encoded(one_bit, "PNG"))[0].tolist() == [[0, 0, 0], [255, 255, 255]]


@pytest.mark.parametrize("channels", [1, 3])
def test_alpha_is_composited_on_white(channels):
    image = np.zeros((1, 3, 4), np.uint8)
    image[0, :, 3] = (255, 0, 51)  # opaque, clear and 1/5 black
    np.testing.assert_allclose(pixels(encoded(image, "PNG"), channels)[0, :, 0], [0, 255, 204], atol=1)


def test_transparent_colors_are_white():
    palette = Image.new("P", (2, 2))
    palette.putpalette([255, 0, 0])
    for image, color in ((palette, 0), (Image.new("RGB", (2, 2), (1, 2, 3)), (1, 2, 3)), (Image.new("L", (2, 2)), 0)):
        assert pixels(encoded(image, "PNG", transparency=color)).min() == 255


def test_four_channels_keep_alpha():
    image = RNG.integers(0, 256, (5, 6, 4), dtype=np.uint8)
    np.testing.assert_array_equal(pixels(encoded(image, "PNG"), 4), image)
    assert (pixels(encoded(NOISE, "PNG"), 4)[..., 3] == 255).all()


# What a viewer does to the stored pixels to show them upright, by EXIF orientation.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
    99: lambda a: a,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize(
    ("form", "options"), [("JPEG", {"quality": 95}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})]
)
def test_exif_orientation(orientation, form, options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(RAMP, form, exif=exif, **options)
    stored = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) if form == "JPEG" else RAMP
    expected = UPRIGHT[orientation](stored)
    header = Encoded(data)
    assert (header.height, header.width) == expected.shape[:2]
    np.testing.assert_array_equal(to_array(header.pixels(3)), expected)


def test_damaged_exif_does_not_lose_the_picture():
    assert pixels(encoded(RAMP, "JPEG", exif=b"Exif\0\0junk that is no TIFF")).shape == RAMP.shape


@pytest.mark.parametrize("size", [(1, 1), (20000, 10), (10, 20000)])
def test_extreme_shapes(size):
    assert size_of(decode(encoded(Image.new("RGB", size), "JPEG"), 3)) == size[::-1]


JPEG, PNG = encoded(NOISE, "JPEG"), encoded(NOISE, "PNG")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (JPEG[:-1], "truncated"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (JPEG[:20], "format"),
        (PNG[: len(PNG) // 2], "truncated"),
        (PNG[:60] + b"\0\0\0\0" + PNG[64:], "broken|checksum|corrupt|bad"),
        (encoded(NOISE, "WEBP")[:-1], "decoder|trunc"),
        (encoded(NOISE, "BMP")[:-1], "truncated"),
        (b"", "empty"),
        (b"<html>404</html>", "not an image of a known format"),
        (encoded(NOISE, "TIFF")[:-1], "truncated"),
        (encoded(NOISE, "TGA"), "not an image of a known format"),
    ],
)
def test_damaged_files_are_refused_with_a_reason(data, reason):
    with pytest.raises(DecodeError, match=reason) as caught:
        decode(data, 3)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:Image size")
@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_small_file_cannot_claim_a_gigantic_image(side):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(DecodeError, match="pixels"):
        decode(data, 3)


@pytest.mark.parametrize("channels", [1, 3, 4, 7])
def test_arrays_pass_unchanged(channels):
    array = RNG.integers(0, 256, (5, 6, channels), dtype=np.uint8)
    np.testing.assert_array_equal(to_array(decode(array, channels)), array)


def test_arrays_must_fit():
    with pytest.raises(DecodeError, match=r"\[h, w, 3\] is needed, not uint8 of 5 x 6 x 7"):
        decode(np.zeros((5, 6, 7), np.uint8), 3)
    with pytest.raises(DecodeError, match="not float32"):
        decode(np.zeros((5, 6, 3), np.float32), 3)
    with pytest.raises(DecodeError, match="1, 3 or 4 channels, not 2"):
        decode(PNG, 2)


@pytest.mark.parametrize(("reduction", "size"), [(1, (40, 60)), (2, (20, 30)), (4, (10, 15)), (8, (5, 8))])
def test_a_jpeg_can_be_decoded_smaller(reduction, size):
    image = Encoded(encoded(RAMP, "JPEG", quality=95)).pixels(3, reduction)
    assert size_of(image) == size
    whole = np.asarray(Image.fromarray(RAMP).resize(size[::-1], Image.Resampling.BOX)).astype(int)
    assert np.abs(to_array(image) - whole).mean() < 5


def test_only_jpegs_are_decoded_smaller():
    assert size_of(Encoded(PNG).pixels(3, 4)) == (40, 60)
