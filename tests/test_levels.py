"""More than 8 bits a channel: the values that a file stores, and the pixels that they become."""

import numpy as np
import pytest
from PIL import Image

from localmim_jax.data.decode import DecodeError, Encoded, convert, decode, to_array
from localmim_jax.data.levels import Levels, parse, to_uint8
from localmim_jax.errors import ConfigError
from tests.deep_images import photograph, png, tiff

COLOR = photograph()
GRAY = COLOR[:, :, 1]
CAMERA = Levels(0, 4095)  # of 12 bits


def expected(values, levels=CAMERA):
    return np.clip((values.astype(np.float64) - levels.black) / (levels.white - levels.black) * 255, 0, 255)


def pixels(data, channels, levels=None):
    return to_array(decode(data, channels, levels))


@pytest.mark.parametrize(
    ("data", "values"),
    [
        pytest.param(png(GRAY[:, :, None]), GRAY, id="PNG gray"),
        pytest.param(png(COLOR), COLOR, id="PNG RGB"),
        pytest.param(tiff(GRAY), GRAY, id="TIFF gray"),
        pytest.param(tiff(GRAY, byteorder=">"), GRAY, id="TIFF gray big-endian"),
        pytest.param(tiff(GRAY, compression="deflate"), GRAY, id="TIFF gray deflate"),
        pytest.param(tiff(COLOR), COLOR, id="TIFF RGB"),
        pytest.param(tiff(COLOR, byteorder=">"), COLOR, id="TIFF RGB big-endian"),
        pytest.param(tiff(COLOR, compression="deflate"), COLOR, id="TIFF RGB deflate"),
        pytest.param(tiff(COLOR, compression="deflate", byteorder=">"), COLOR, id="TIFF RGB deflate big-endian"),
        pytest.param(tiff(GRAY.astype(np.int16)), GRAY, id="signed 16"),
        pytest.param(tiff(GRAY.astype(np.int32)), GRAY, id="signed 32"),
        pytest.param(tiff(GRAY.astype(np.uint32)), GRAY, id="unsigned 32"),
        pytest.param(tiff(GRAY.astype(np.float32)), GRAY, id="float"),
        pytest.param(tiff(GRAY.astype(np.float32), compression="deflate"), GRAY, id="float deflate"),
        pytest.param(b"P5 60 40 65535\n" + GRAY.astype(">u2").tobytes(), GRAY, id="PGM"),
    ],
)
def test_the_levels_of_a_camera_fill_0_to_255(data, values):
    """Of 12 bits in 16, a mean of 8 of 255 becomes that of the photograph."""
    found = pixels(data, 3, CAMERA).astype(float)
    wanted = expected(values if values.ndim == 3 else np.repeat(values[:, :, None], 3, axis=2))
    np.testing.assert_allclose(found, wanted, atol=0.5001)
    assert found.mean() > 90


@pytest.mark.parametrize("data", [png(GRAY[:, :, None]), png(COLOR), tiff(GRAY), tiff(COLOR)])
def test_shown_in_16_bits_the_same_photograph_is_nearly_black(data):
    assert pixels(data, 3).mean() < 9


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_keeps_its_own_range(channels):
    color = GRAY[:, :, None] if channels == 2 else COLOR
    alpha = np.full((*GRAY.shape, 1), 65535, np.uint16)
    alpha[:5] = 0
    data = png(np.concatenate([color, alpha], axis=2))
    found = pixels(data, 4, CAMERA)
    assert (found[:5, :, 3] == 0).all()
    assert (found[5:, :, 3] == 255).all()
    np.testing.assert_allclose(found[5:, :, :3], expected(color + np.zeros((1, 1, 3)))[5:], atol=0.5001)
    assert (pixels(data, 3, CAMERA)[:5] == 255).all()  # on white


def test_without_levels_the_range_of_the_type_is_shown():
    values = np.array([[0, 200, 256, 32768, 40000, 65535]], np.uint16)
    for data in (png(values[:, :, None]), tiff(values)):
        np.testing.assert_array_equal(pixels(data, 1)[0, :, 0], np.round(values[0] / 257))
    signed = np.array([[-32768, 0, 32767]], np.int16)
    assert pixels(tiff(signed), 1).ravel().tolist() == [0, 128, 255]
    assert pixels(tiff(np.array([[0, 2**31, 2**32 - 1]], np.uint32)), 1).ravel().tolist() == [0, 128, 255]
    floats = np.array([[-1, 0, 0.5, 1, 7, np.nan, np.inf]], np.float32)
    assert pixels(tiff(floats), 1).ravel().tolist() == [0, 0, 128, 255, 255, 0, 255]
    assert pixels(png(COLOR * 16), 3).tolist() == (COLOR * 16 >> 8).tolist()


def test_white_is_zero():
    values = np.array([[0, 4095]], np.uint16)
    assert pixels(tiff(values, photometric="miniswhite"), 1, CAMERA).ravel().tolist() == [255, 0]


def test_images_of_8_bits_do_not_change():
    image = (COLOR >> 4).astype(np.uint8)
    for data in (tiff(image), tiff(image[:, :, 0]), tiff(image, compression="deflate")):
        np.testing.assert_array_equal(pixels(data, 3, CAMERA), pixels(data, 3))
    np.testing.assert_array_equal(pixels(tiff(image), 3), image)


def test_turned_images_and_images_of_pillow():
    data = tiff(GRAY, extratags=[(0x0112, "H", 1, 6, True)])
    turned = np.rot90(expected(GRAY), -1)
    header = Encoded(data)
    assert (header.height, header.width) == turned.shape
    np.testing.assert_allclose(to_array(header.pixels(1, levels=CAMERA))[:, :, 0], turned, atol=0.5001)
    image = convert(Image.fromarray(GRAY), 3, CAMERA)
    np.testing.assert_allclose(np.asarray(image)[:, :, 0], expected(GRAY), atol=0.5001)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(
            tiff(np.moveaxis(COLOR, -1, 0), photometric="rgb", planarconfig="separate"), "planes", id="planes"
        ),
        pytest.param(tiff(GRAY.astype(np.float64)), "a TIFF that Pillow does not read", id="float64"),
        pytest.param(tiff(COLOR.astype(np.float32)), "a TIFF that Pillow does not read", id="float colors"),
        pytest.param(tiff(np.zeros((8, 9, 7), np.uint16), planarconfig="contig"), "does not read", id="7 channels"),
        pytest.param(tiff(GRAY)[:-2], "truncated|read", id="truncated"),
        pytest.param(png(COLOR)[:200], "truncated", id="truncated colors"),
    ],
)
def test_what_pillow_would_misread_is_refused(data, reason):
    for levels in (None, CAMERA):
        with pytest.raises(DecodeError, match=reason):
            decode(data, 3, levels)


def test_rules():
    assert parse("0:4095") == Levels(0, 4095)
    assert parse("-1.5e2:.5") == Levels(-150, 0.5)
    assert [parse(rule) for rule in ("", "max", "percentile")] == [None] * 3
    assert parse(str(Levels(0.1, 1 / 3))) == Levels(0.1, 0.333333333)
    for rule in ("full", "4095", "5:5", "9:1", "nan:1", "0:inf", "0:1e999", "a:b", "1:2:3"):
        with pytest.raises(ConfigError, match=r"data\.high_bit_depth is .* as in 0:4095"):
            parse(rule)


def test_values_beyond_the_levels_are_cut_off():
    assert to_uint8(np.array([-5, 10, 20, 30, 99]), Levels(10, 30)).tolist() == [0, 0, 128, 255, 255]
