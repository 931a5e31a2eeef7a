"""Images made smaller or encoded in another way."""

import io

import numpy as np
import pytest
from PIL import Image

from localmim_jax.data.builders.reencode import Converter
from localmim_jax.data.decode import DecodeError, decode, to_array
from localmim_jax.errors import ConfigError
from tests.test_prepare import RNG, jpeg


def test_arrays_are_stored_as_png_unless_told_otherwise(tmp_path):
    array = RNG.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    np.testing.assert_array_equal(to_array(decode(Converter()(array), 3)), array)
    assert Image.open(io.BytesIO(Converter()(array))).format == "PNG"
    assert Image.open(io.BytesIO(Converter(encoding="jpeg")(array))).format == "JPEG"


def test_the_converter_is_upright_gray_where_wanted_and_never_enlarges():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.open(io.BytesIO(Converter(30, "raw", channels=1)(jpeg(60, 90, exif=exif))))
    assert (image.mode, image.size) == ("L", (30, 45))
    small = jpeg(20, 30)
    assert Converter(64)(small) == small
    assert Image.open(io.BytesIO(Converter(64, "raw")(small))).size == (30, 20)
    with pytest.raises(DecodeError):
        Converter()(small[:-50])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"encoding": "webp"}, "--encoding=webp: it must be one of keep, jpeg, raw"),
        ({"encoding": "keep", "short_side": 3}, "--encoding=keep cannot shrink"),
        ({"short_side": -1}, "--short_side must be at least 0"),
        ({"quality": 0}, "--quality 1 to 100"),
        ({"channels": 4}, "--channels 1 or 3"),
    ],
)
def test_converters_that_cannot_be(arguments, words):
    with pytest.raises(ConfigError, match=words):
        Converter(**arguments)
