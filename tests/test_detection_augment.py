import dataclasses

import numpy as np
import pytest
from PIL import Image, ImageDraw

from localmim_jax.data.decode import DecodeError
from localmim_jax.detection.augment import DetectionEvalTransform, DetectionTransform, fitted, rasterise
from localmim_jax.detection.coco import CocoSource
from tests.test_coco import annotation, write

PLAIN = DetectionTransform(
    short_sides=(80,),
    long_side=160,
    crop_probability=0.0,
    crop_sides=(60,),
    crop_range=(30, 50),
    flip=False,
    max_objects=4,
    mask_size=20,
)


@pytest.fixture
def source(tmp_path):
    """An image that is black but for a white rectangle, which is also its only object."""
    rectangle = [[20.0, 10.0, 50.0, 10.0, 50.0, 30.0, 20.0, 30.0]]
    only = annotation(1, 10, box=(20, 10, 30, 20), segmentation=rectangle)
    root = write(tmp_path, {"annotations": [only]})
    image = np.zeros((40, 60, 3), np.uint8)
    image[10:30, 20:50] = 255
    Image.fromarray(image).save(root / "val" / "1.png")
    return CocoSource(str(root), "val")


def seen(example):
    """Box of the white pixels."""
    rows, columns = (np.flatnonzero((example["image"][..., 0] > 127).any(axis)) for axis in (1, 0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) if len(rows) else None


def test_resized_and_padded_in_the_bucket(source):
    example = PLAIN(source[1], (96, 160), np.random.default_rng(0))
    np.testing.assert_array_equal(example["size"], [80, 120])
    assert example["image"].shape == (96, 160, 3)
    assert not example["image"][80:].any()
    assert not example["image"][:, 120:].any()
    np.testing.assert_allclose(example["boxes"][0], [40, 20, 100, 60], atol=1e-4)
    np.testing.assert_array_equal(example["labels"], [0, -1, -1, -1])
    assert example["masks"][0].all()
    assert not example["masks"][1:].any()
    np.testing.assert_allclose(seen(example), example["boxes"][0], atol=1)


def test_crops_and_flips_move_box_mask_and_pixels_together(source):
    transform = dataclasses.replace(PLAIN, crop_probability=0.7, flip=True, short_sides=(60, 80, 96))
    found, whole, empty = 0, 0, 0
    for seed in range(60):
        example = transform(source[1], (96, 160), np.random.default_rng(seed))
        h, w = example["size"]
        assert h <= 96
        assert w <= 160
        if example["labels"][0] < 0:
            empty += 1
            continue
        box, pixels = example["boxes"][0], seen(example)
        assert (box >= -1e-4).all()
        assert (box <= [w, h, w, h]).all()
        if pixels is not None and min(box[2] - box[0], box[3] - box[1]) > 6:
            np.testing.assert_allclose(pixels, box, atol=2.5)
            assert example["masks"][0].mean() > 0.9
            found += 1
        whole += abs((box[2] - box[0]) / (box[3] - box[1]) - 1.5) < 0.02
    assert found > 40
    assert 10 < whole < 50, "some crops cut the object, some do not"
    again = transform(source[1], (96, 160), np.random.default_rng(59))
    np.testing.assert_array_equal(again["image"], example["image"])


def test_a_flip_mirrors_the_mask_as_it_does_the_pixels(tmp_path):
    """An object that leans: the right angle of a triangle is at its left before, at its right afterwards."""
    triangle = [[20.0, 10.0, 50.0, 30.0, 20.0, 30.0]]
    only = annotation(1, 10, box=(20, 10, 30, 20), segmentation=triangle)
    root = write(tmp_path, {"annotations": [only]})
    image = Image.new("L", (60, 40))
    ImageDraw.Draw(image).polygon([(20, 10), (50, 30), (20, 30)], fill=255)
    image.save(root / "val" / "1.png")
    source, sides = CocoSource(str(root), "val"), set()
    transform = dataclasses.replace(PLAIN, flip=True, short_sides=(40,))
    for seed in range(10):
        example = transform(source[1], (96, 160), np.random.default_rng(seed))
        left, top, right, bottom = example["boxes"][0].round().astype(int)
        pixels = example["image"][top:bottom, left:right, 0] > 127
        mask = np.asarray(Image.fromarray(example["masks"][0]).resize((right - left, bottom - top), 0)) > 0
        assert (mask == pixels).mean() > 0.9
        sides.add(left)
    assert sides == {20, 10}


def test_a_crop_that_stands_is_made_to_fit_a_lying_bucket():
    assert fitted(40, 60, 80, 160, (96, 160)) == (80, 120)
    assert fitted(40, 60, 96, 120, (96, 160)) == (80, 120)
    assert fitted(60, 40, 80, 160, (96, 160)) == (96, 64)
    assert fitted(1, 4000, 800, 1333, (800, 1344)) == (1, 1333)


def test_evaluation_keeps_the_ratio_and_tells_the_original(source):
    example = DetectionEvalTransform(48, 100)(source[1], (64, 96), np.random.default_rng(0))
    np.testing.assert_array_equal(example["size"], [48, 72])
    np.testing.assert_array_equal(example["original"], [40, 60])
    np.testing.assert_allclose(seen(example), [24, 12, 60, 36], atol=1)


def test_polygons_and_run_lengths_of_one_mask_agree():
    from pycocotools import mask as coco_mask

    triangle = [[5.0, 5.0, 35.0, 8.0, 20.0, 38.0]]
    compressed = coco_mask.merge(coco_mask.frPyObjects(triangle, 40, 60))
    whole = coco_mask.decode(compressed)
    flat = whole.ravel(order="F").astype(int)
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *changes, len(flat)]).tolist()
    plain = {"size": [40, 60], "counts": counts if not flat[0] else [0, *counts]}
    box = (5.0, 5.0, 35.0, 38.0)
    found = [rasterise(m, box, (40, 60), 56) for m in (triangle, compressed, plain)]
    np.testing.assert_array_equal(found[1], found[2])
    assert np.mean(found[0] != found[1]) < 0.04
    assert 0.4 < found[0].mean() < 0.6
    # A part of the box shows a part of the mask.
    half = rasterise(triangle, (5.0, 5.0, 35.0, 21.5), (40, 60), 56)
    np.testing.assert_allclose(half.mean(axis=1)[::2], found[0].mean(axis=1)[:28], atol=0.08)


def test_damaged_masks_and_wrong_sizes_are_named(source, tmp_path):
    with pytest.raises(DecodeError, match="a mask cannot be read"):
        rasterise({"counts": "x", "size": "y"}, (0, 0, 5, 5), (40, 60), 8)
    Image.fromarray(np.zeros((10, 60, 3), np.uint8)).save(tmp_path / "val" / "2.png")
    with pytest.raises(DecodeError, match="it is 10 x 60 pixels, and its annotation says 40 x 60"):
        PLAIN(source[2], (96, 160), np.random.default_rng(0))
