"""Crops against an independent statement of torchvision's rules, and pixels against plain Pillow."""

import io
import math
import pickle

import numpy as np
import pytest
from PIL import Image
from skimage import data as photos

from localmim_jax.data.augment import EvalTransform, TrainTransform, center_crop, random_resized_crop
from localmim_jax.errors import ConfigError
from tests.defaults import data_config

PHOTO = photos.coffee()[:375, :500]


def jpeg(array, **options):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "JPEG", quality=90, **options)
    return file.getvalue()


def transform(**changes):
    return TrainTransform.of(data_config(**{"name": "tfds:any", "image_size": (224, 224), "batch_size": 1} | changes))


def torchvision_get_params(draws, height, width, scale, ratio):
    """RandomResizedCrop.get_params in its documentation's words: draws is (uniform(a, b), integer(below))."""
    uniform, below = draws
    for _ in range(10):
        target_area = uniform(scale[0], scale[1]) * (width * height)
        aspect_ratio = math.exp(uniform(math.log(ratio[0]), math.log(ratio[1])))
        w = round(math.sqrt(target_area * aspect_ratio))
        h = round(math.sqrt(target_area / aspect_ratio))
        if 0 < w <= width and 0 < h <= height:
            i = below(height - h + 1)
            j = below(width - w + 1)
            return i, j, h, w
    in_ratio = float(width) / float(height)
    if in_ratio < min(ratio):
        w, h = width, round(width / min(ratio))
    elif in_ratio > max(ratio):
        h, w = height, round(height * max(ratio))
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize("size", [(375, 500), (500, 375), (8, 8), (1, 1), (10, 20000), (20000, 10), (100, 190), (3, 2)])
@pytest.mark.parametrize("scale", [(0.2, 1.0), (0.08, 1.0), (1.0, 1.0)])
def test_crops_follow_torchvision(size, scale):
    ratio = (3 / 4, 4 / 3)
    for seed in range(50):
        ours, theirs = np.random.default_rng(seed), np.random.default_rng(seed)
        draws = theirs.uniform, lambda below, rng=theirs: int(rng.integers(below))
        crop = random_resized_crop(ours, *size, scale, ratio)
        assert crop == torchvision_get_params(draws, *size, scale, ratio)
        top, left, height, width = crop
        assert min(top, left) >= 0
        assert min(height, width) >= 1
        assert top + height <= size[0]
        assert left + width <= size[1]


@pytest.mark.parametrize(
    ("size", "crop"),
    [((10, 20000), (0, 9993, 10, 13)), ((20000, 10), (9993, 0, 13, 10)), ((9, 10), (0, 0, 9, 10))],
)
def test_the_fallback_is_the_largest_centered_crop(size, crop):
    # Ten crops of the whole area and the widest ratio never fit into these.
    class Widest:
        def uniform(self, low, high):
            return high

    assert random_resized_crop(Widest(), *size, (1.0, 1.0), (3 / 4, 4 / 3)) == crop


@pytest.mark.parametrize(("failures", "crop"), [(9, (3, 3, 5, 5)), (10, (0, 0, 10, 10))])
def test_the_tenth_try_is_the_last(failures, crop):
    class FitsLate:
        def __init__(self):
            self.tries = 0

        def uniform(self, low, high):
            if high == 1.0:  # the area, drawn once a try
                self.tries += 1
                return 0.25 if self.tries > failures else 1.0
            return 0.0 if self.tries > failures else high

        def integers(self, low, high):
            return 3

    assert random_resized_crop(FitsLate(), 10, 10, (0.2, 1.0), (3 / 4, 4 / 3)) == crop


def test_area_and_ratio_are_spread_as_meant():
    rng = np.random.default_rng(0)
    crops = np.array([random_resized_crop(rng, 2000, 2000, (0.1, 0.5), (3 / 4, 4 / 3)) for _ in range(4000)])
    shares = np.sort(crops[:, 2] * crops[:, 3] / 2000**2)
    logs = np.sort(np.log(crops[:, 3] / crops[:, 2]))
    steps = (np.arange(4000) + 0.5) / 4000
    assert np.abs(shares - (0.1 + 0.4 * steps)).max() < 0.015
    assert np.abs(logs - np.log(4 / 3) * (2 * steps - 1)).max() < 0.02


@pytest.mark.parametrize("size", [(224, 224), (96, 128)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_training_transform_is_pillows_crop_then_resize_then_flip(size, channels):
    data = jpeg(PHOTO)
    image = Image.open(io.BytesIO(data)).convert("L" if channels == 1 else "RGB")
    flips = set()
    for seed in range(6):
        rng = np.random.default_rng(seed)
        top, left, height, width = random_resized_crop(rng, 375, 500, (0.2, 1.0), (3 / 4, 4 / 3))
        flip = rng.random() < 0.5
        expected = image.crop((left, top, left + width, top + height)).resize(size[::-1], Image.Resampling.BICUBIC)
        expected = np.asarray(expected).reshape(*size, channels)[:, :: -1 if flip else 1]
        finished = transform(image_size=size, channels=channels)({"image": data}, np.random.default_rng(seed))
        np.testing.assert_array_equal(finished["image"], expected)
        assert finished.keys() == {"image"}
        flips.add(flip)
    assert flips == {True, False}


def test_no_flip_when_told():
    image = {"image": PHOTO, "label": 3}
    for seed in range(8):
        made = transform(flip=False, crop_scale=(1.0, 1.0), crop_ratio=(4 / 3, 4 / 3), image_size=(375, 500))(
            image, np.random.default_rng(seed)
        )
        np.testing.assert_array_equal(made["image"], PHOTO)
    assert made["label"] == 3
    assert made["label"].dtype == np.int32


def test_arrays_of_other_channel_counts_are_cropped_like_images():
    """Five channels, the first three of which are a photograph."""
    array = np.concatenate([PHOTO, PHOTO[..., :2]], axis=-1)
    five = transform(channels=5)({"image": array}, np.random.default_rng(1))["image"]
    three = transform()({"image": PHOTO}, np.random.default_rng(1))["image"]
    np.testing.assert_array_equal(five[..., :3], three)
    np.testing.assert_array_equal(five[..., 3:], three[..., :2])


def test_exif_orientation_comes_before_the_crop():
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.open(io.BytesIO(jpeg(PHOTO)))
    upright = np.asarray(stored.transpose(Image.Transpose.ROTATE_270))
    turned = transform()({"image": jpeg(PHOTO, exif=exif)}, np.random.default_rng(0))["image"]
    plain = transform()({"image": upright}, np.random.default_rng(0))["image"]
    np.testing.assert_array_equal(turned, plain)


@pytest.mark.parametrize("size", [(224, 224), (48, 64)])
def test_fast_decoding_takes_the_same_crop_and_differs_little(size):
    data = jpeg(PHOTO)
    differences = []
    for seed in range(10):
        exact, fast = (
            transform(image_size=size, fast_decode=flag)({"image": data}, np.random.default_rng(seed))["image"]
            for flag in (False, True)
        )
        assert fast.shape == exact.shape
        differences.append(np.abs(exact.astype(int) - fast).mean())
    assert 0 < np.mean(differences) < 3
    # A crop that is off by one pixel would differ by more.
    shifted = np.abs(exact[:, 1:].astype(int) - exact[:, :-1]).mean()
    assert np.mean(differences) < shifted


def test_fast_decoding_of_other_formats():
    file = io.BytesIO()
    Image.fromarray(PHOTO).save(file, "PNG")
    fast = transform(fast_decode=True, image_size=(32, 32))({"image": file.getvalue()}, np.random.default_rng(0))
    exact = transform(image_size=(32, 32))({"image": file.getvalue()}, np.random.default_rng(0))
    assert np.abs(fast["image"].astype(int) - exact["image"]).mean() < 4


def torchvision_resize_and_crop(image, resize, crop):
    """Resize(int) and CenterCrop of torchvision, for an image that is at least as large as the crop afterwards."""
    width, height = image.size
    short, long = (width, height) if width <= height else (height, width)
    new_short, new_long = resize, int(resize * long / short)
    new = (new_short, new_long) if width <= height else (new_long, new_short)
    image = image if new == (width, height) else image.resize(new, Image.Resampling.BICUBIC)
    top = round((image.height - crop) / 2.0)
    left = round((image.width - crop) / 2.0)
    return image.crop((left, top, left + crop, top + crop))


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (256, 256), (8, 8), (301, 257), (1000, 256), (5000, 300)])
def test_evaluation_is_torchvisions_resize_and_center_crop(size):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    expected = torchvision_resize_and_crop(image, 256, 224)
    np.testing.assert_array_equal(np.asarray(center_crop(image, (224, 224), 256)), np.asarray(expected))


@pytest.mark.parametrize("size", [(8000, 100), (100, 8000)])
def test_the_center_of_a_long_banner(size):
    """Too long to be resized whole, and yet the same picture."""
    ramp = np.add.outer(np.arange(size[1]), np.arange(size[0]))
    image = Image.fromarray((np.sin(ramp[..., None] / np.array([9, 14, 23])) * 120 + 128).astype(np.uint8))
    expected = np.asarray(torchvision_resize_and_crop(image, 256, 224)).astype(int)
    assert np.abs(np.asarray(center_crop(image, (224, 224), 256)) - expected).max() <= 2


def test_evaluation_defaults_to_the_usual_proportion():
    image = {"image": PHOTO}
    for side, resize in ((224, 256), (32, 37)):
        default, same = (EvalTransform((side, side), 3, r)(image, None)["image"] for r in (0, resize))
        np.testing.assert_array_equal(default, same)


@pytest.mark.parametrize("size", [(100, 100), (375, 500), (500, 90), (10, 2000)])
def test_a_center_crop_that_is_not_square_is_covered(size):
    """No padding: a plain image stays plain, whatever its shape."""
    image = np.full((*size, 3), 200, np.uint8)
    cropped = EvalTransform((96, 128), 3, 110)({"image": image}, None)["image"]
    assert cropped.shape == (96, 128, 3)
    assert (cropped == 200).all()


def test_a_resize_below_the_crop_still_covers_it():
    assert EvalTransform((32, 32), 3, 8)({"image": PHOTO}, None)["image"].shape == (32, 32, 3)
    with pytest.raises(ConfigError, match="resize is -1: give"):
        EvalTransform((32, 32), 3, -1)


def test_transforms_can_be_sent_to_worker_processes():
    for made in (transform(), EvalTransform((8, 8), 3)):
        assert pickle.loads(pickle.dumps(made)) == made


@pytest.mark.parametrize("size", [(20000, 10), (10, 20000), (1, 1)])
def test_extreme_shapes_become_finished_images(size):
    data = jpeg(np.full((*size, 3), 77, np.uint8))
    for made in (transform(), transform(fast_decode=True), EvalTransform((224, 224), 3, 256)):
        image = made({"image": data}, np.random.default_rng(0))["image"]
        assert image.shape == (224, 224, 3)
        assert np.abs(image.astype(int) - 77).max() <= 2


MORE = [
    {"vertical_flip": True},
    {"rotate90": True},
    {"color_jitter": (0.4, 0.4, 0.4, 0.1)},
    {"grayscale": 0.5},
]


@pytest.mark.parametrize("changes", MORE, ids=lambda changes: next(iter(changes)))
def test_what_is_off_draws_nothing(changes):
    """The crop and flip are the same with and without the others, which come after them."""
    plain, changed = transform(image_size=(32, 32)), transform(image_size=(32, 32), **changes)
    seen = set()
    for seed in range(24):
        before = plain({"image": PHOTO}, np.random.default_rng(seed))["image"]
        after = changed({"image": PHOTO}, np.random.default_rng(seed))["image"]
        if "vertical_flip" in changes:
            candidates = [before, before[::-1]]
        elif "rotate90" in changes:
            candidates = [np.rot90(before, turns) for turns in range(4)]
        elif "grayscale" in changes:
            candidates = [before, np.asarray(Image.fromarray(before).convert("L").convert("RGB"))]
        else:
            assert not np.array_equal(before, after)
            assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.5
            continue
        (index,) = (i for i, candidate in enumerate(candidates) if np.array_equal(candidate, after))
        seen.add(index)
    assert "color_jitter" in changes or seen == set(range(len(candidates)))


def test_arrays_of_any_channels_turn_too():
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 5), np.uint8)
    several = transform(image_size=(16, 16), channels=5, vertical_flip=True, rotate90=True)
    found = {several({"image": image}, np.random.default_rng(seed))["image"].tobytes() for seed in range(6)}
    assert len(found) == 6
