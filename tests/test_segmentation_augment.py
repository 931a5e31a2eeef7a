import colorsys
import dataclasses

import numpy as np
import pytest
from PIL import Image

from localmim_jax.data.decode import DecodeError
from localmim_jax.segmentation.augment import (
    Distortion,
    SegmentationEvalTransform,
    SegmentationTransform,
    fitted,
    linear,
    nearest,
    turn,
)
from localmim_jax.segmentation.numbering import IGNORED

STILL = Distortion(0.0, 0.0, 0.0, 0.0)
PLAIN = SegmentationTransform((48, 48), (192, 48), (0.5, 2.0), 0.75, True, STILL, (124, 116, 104))


@pytest.fixture
def example():
    """A picture whose red channel is its mask: large patches of 20, 80 and 140 for the labels 0, 1 and 2."""
    mask = np.random.default_rng(0).integers(0, 3, (5, 7)).repeat(17, 0).repeat(16, 1)[:83].astype(np.uint8)
    image = np.stack([20 + 60 * mask, np.full_like(mask, 100), np.full_like(mask, 30)], axis=-1)
    return {"image": image, "mask": mask}


def test_a_mask_drawn_into_the_image_moves_with_it(example):
    sizes, unlabeled = set(), 0
    for seed in range(40):
        made = PLAIN(example, np.random.default_rng(seed))
        image, mask = made["image"].astype(int), made["mask"]
        assert (image.shape, mask.shape) == ((48, 48, 3), (48, 48))
        inside = mask != IGNORED
        # Padding is one rectangle at the bottom and right, and has the mean color.
        rows, columns = inside.any(1).sum(), inside.any(0).sum()
        assert inside[:rows, :columns].all()
        assert (image[~inside] == PLAIN.fill).all()
        agrees = np.abs(image[..., 0] - (20 + 60 * mask.astype(int))) < 30
        assert agrees[inside].mean() > 0.95, "only pixels on an edge between patches are mixed"
        sizes.add((rows, columns))
        unlabeled += (~inside).sum()
    assert unlabeled, "some images are smaller than the crop"
    assert len(sizes) > 5


def test_mirror_images_and_scales_occur_as_often_as_they_should(example):
    whole = dataclasses.replace(PLAIN, image_size=(83, 112), scale=(112, 83), ratio_range=(1.0, 1.0))
    mirrored = 0
    for seed in range(60):
        mask = whole(example, np.random.default_rng(seed))["mask"]
        straight = (mask == example["mask"]).all()
        assert straight or (mask == example["mask"][:, ::-1]).all()
        mirrored += not straight
    assert 15 < mirrored < 45
    same = dataclasses.replace(whole, flip=False)(example, np.random.default_rng(3))
    np.testing.assert_array_equal(same["image"], example["image"])


def test_a_class_that_fills_the_crop_is_avoided_where_it_can_be():
    mask = np.zeros((100, 100), np.uint8)
    mask[:, 70:] = 1
    given = {"image": np.zeros((100, 100, 3), np.uint8), "mask": mask}
    transform = dataclasses.replace(PLAIN, image_size=(30, 30), scale=(100, 100), ratio_range=(1.0, 1.0), flip=False)

    def share(transform, given, seed):
        made = transform(given, np.random.default_rng(seed))["mask"]
        return np.bincount(made.ravel(), minlength=3).max() / (made != IGNORED).sum()

    shares = [share(transform, given, seed) for seed in range(50)]
    assert np.mean(np.array(shares) < 0.75) > 0.75
    free = dataclasses.replace(transform, max_class_fraction=1.0)
    assert np.mean([share(free, given, seed) < 0.75 for seed in range(50)]) < 0.4
    alone = {**given, "mask": np.zeros_like(mask)}
    assert share(transform, alone, 0) == 1.0, "where there is but one class, some crop is taken"


def test_colors_change_as_plain_loops_say():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (6, 7, 3), np.uint8)
    np.testing.assert_array_equal(linear(image, 1.5, -20), np.clip(np.rint(image * 1.5 - 20), 0, 255))
    for factor, degrees in ((1.4, 0.0), (0.6, 25.0), (1.0, -36.0)):
        expected = np.empty(image.shape)
        for place in np.ndindex(6, 7):
            h, s, v = colorsys.rgb_to_hsv(*(image[place] / 255))
            expected[place] = colorsys.hsv_to_rgb((h + degrees / 360) % 1, min(s * factor, 1), v)
        # Eight bits each of hue and saturation are what a picture in HSV has.
        assert np.abs(turn(image, factor, degrees) - 255 * expected).max() <= 8
    gray = np.full((2, 2, 3), 90, np.uint8)
    np.testing.assert_array_equal(turn(gray, 1.5, 30), gray)


def test_each_distortion_comes_half_of_the_time():
    image = np.tile(np.array([[[120, 90, 60]]], np.uint8), (1, 1, 1))
    for name in ("brightness", "contrast", "saturation", "hue"):
        only = dataclasses.replace(STILL, **{name: getattr(Distortion(), name)})
        found = np.array([only(image, np.random.default_rng(seed))[0, 0] for seed in range(200)]).astype(int)
        changed = (found != image[0, 0]).any(axis=1)
        assert 60 < changed.sum() < 135, name
        if name == "brightness":
            assert np.abs(found - image[0, 0]).max() <= 32
    together = [Distortion()(image, np.random.default_rng(seed)) for seed in range(30)]
    assert len({tuple(made.ravel()) for made in together}) > 20


def test_pure_in_the_random_stream(example):
    colored = dataclasses.replace(PLAIN, distortion=Distortion())
    for seed in range(3):
        first, again = (colored(example, np.random.default_rng(seed)) for _ in range(2))
        for key in first:
            np.testing.assert_array_equal(first[key], again[key])


def test_sizes_keep_the_ratio():
    assert fitted(300, 400, (2048, 512)) == (512, 683)
    assert fitted(400, 300, (2048, 512)) == (683, 512)
    assert fitted(100, 1000, (2048, 512)) == (205, 2048)
    assert fitted(1, 5000, (20, 20)) == (1, 20)
    np.testing.assert_array_equal(nearest(6, 3), [0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(nearest(2, 6), [1, 4])


def test_evaluation_keeps_the_mask_and_gives_every_ratio(example):
    transform = SegmentationEvalTransform((200, 64), (1.0, 0.5), 16)
    made = transform(example, (90, 130), np.random.default_rng(0))
    assert transform.sizes((83, 112)) == ((64, 80), (32, 48))
    assert (made["image"].shape, made["image_1"].shape) == ((64, 80, 3), (32, 48, 3))
    np.testing.assert_array_equal(made["mask"][:83, :112], example["mask"])
    assert (made["mask"] == IGNORED).sum() == 90 * 130 - 83 * 112
    np.testing.assert_array_equal(made["original"], [83, 112])
    exact = dataclasses.replace(transform, ratios=(1.0,), multiple=1)
    assert exact.sizes((83, 112)) == ((64, 86),)


def test_a_mask_of_another_size_is_refused(example):
    given = {**example, "mask": example["mask"][1:]}
    with pytest.raises(DecodeError, match=r"the image is 83 x 112 .* its mask 82 x 112"):
        PLAIN(given, np.random.default_rng(0))
    with pytest.raises(DecodeError, match="make them equal"):
        SegmentationEvalTransform((64, 64))(given, (90, 130), np.random.default_rng(0))


def test_an_encoded_picture_is_cropped_as_the_whole_resized_one(example, tmp_path):
    """Only the crop is resized, which must be the same as cropping what is resized."""
    Image.fromarray(example["image"]).save(tmp_path / "x.png")
    given = {**example, "image": (tmp_path / "x.png").read_bytes()}
    transform = dataclasses.replace(PLAIN, image_size=(40, 40), scale=(224, 166), ratio_range=(1, 1), flip=False)
    made = transform(given, np.random.default_rng(5))["image"]
    whole = np.asarray(Image.fromarray(example["image"]).resize((224, 166), Image.Resampling.BILINEAR)).astype(int)
    windows = np.lib.stride_tricks.sliding_window_view(whole, (40, 40), axis=(0, 1)).transpose(0, 1, 3, 4, 2)
    assert np.abs(windows - made).max(axis=(2, 3, 4)).min() <= 1
