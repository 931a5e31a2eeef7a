import pytest

from localmim_jax.errors import ConfigError
from tests.defaults import data_config

GOOD = {"name": "digits", "image_size": (32, 48), "batch_size": 8}


def test_good_values_pass():
    for name in ("tfds:imagenet2012", "folder:/data", "photos", "digits", "fake"):
        assert data_config(**GOOD | {"name": name}).image_size == (32, 48)
    assert data_config(**GOOD | {"image_size": [32, 48]}).image_size == (32, 48)
    assert data_config(**GOOD | {"name": "fake", "channels": 7}).channels == 7
    assert data_config(**GOOD | {"color_jitter": [0.4, 0.4, 0, 0], "channels": 1}).color_jitter == (0.4, 0.4, 0, 0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "/"}, "data.name is '/'; write folder:/ for a folder of images; it must be"),
        ({"name": "imagenet"}, "data.name is 'imagenet'; it must be \"tfds:<name>\""),
        ({"name": "tfds:"}, "data.name"),
        ({"name": "photos:x"}, "data.name"),
        ({"image_size": (32,)}, "image_size is .*two values"),
        ({"image_size": (0, 32)}, "image_size .*at least 1 pixel"),
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        ({"seed": -1}, "seed is -1"),
        ({"channels": 0}, "data.channels is 0; it must be at least 1"),
        ({"channels": 2}, "data.channels is 2; files hold 1"),
        ({"num_threads": -1}, "data.num_threads"),
        ({"prefetch_batches": 0}, "data.prefetch_batches"),
        ({"crop_scale": (0.0, 1.0)}, "data.crop_scale"),
        ({"crop_scale": (0.5, 0.2)}, "data.crop_scale"),
        ({"crop_scale": (0.5, 1.2)}, "data.crop_scale"),
        ({"crop_ratio": (2.0, 1.0)}, "data.crop_ratio"),
        ({"max_bad_fraction": 1.5}, "data.max_bad_fraction is 1.5"),
        ({"rotate90": True}, r"data.rotate90 needs square images, and image_size is \(32, 48\)"),
        ({"color_jitter": (0.4, 0.4)}, "data.color_jitter is .*: four values are needed"),
        ({"color_jitter": (0.4, 0.4, 0.4, 0.6)}, "a hue of at most 0.5"),
        ({"color_jitter": (-0.1, 0, 0, 0)}, "of at least 0 are needed"),
        ({"grayscale": 1.5}, "data.grayscale is 1.5; it must be between 0 and 1"),
        ({"grayscale": 0.2, "channels": 1}, "images of 3 channels, and data.channels is 1"),
        ({"color_jitter": (0.4, 0, 0, 0), "channels": 4}, "images of 3 channels, and data.channels is 4"),
    ],
)
def test_bad_values_are_named_with_what_is_legal(changes, words):
    with pytest.raises(ConfigError, match=words):
        data_config(**GOOD | changes)
