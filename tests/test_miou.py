import json

import numpy as np
import pytest
from PIL import Image

from localmim_jax.errors import DataError, StorageError
from localmim_jax.segmentation.miou import MeanIoU, confusion, scores, write_mask
from localmim_jax.segmentation.overlay import colors

NAMES = ("wall", "sky, blue", "tree", "never")


def images(count=7, seed=0):
    """(truth, prediction) of several sizes; truth has 255, no 2 in the first images, and class 3 never occurs."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        size = tuple(rng.integers(3, 12, 2))
        truth = rng.choice([0, 1, 255] if i < 3 else [0, 1, 2, 255], size).astype(np.uint8)
        yield truth, rng.integers(0, 3, size).astype(np.uint8)


def plain(pairs, num_classes=4):
    matrix = np.zeros((num_classes, num_classes), np.int64)
    for truth, found in pairs:
        for place in np.ndindex(truth.shape):
            if truth[place] != 255:
                matrix[truth[place], found[place]] += 1
    return matrix


def fill(metric, pairs, sizes=(3, 1, 3)):
    """Feeds ragged batches, padded to a canvas with what must not count."""
    pairs, start = list(pairs), 0
    for size in sizes:
        part = pairs[start : start + size]
        batch = {
            "mask": np.stack(
                [np.pad(t, ((0, 12 - t.shape[0]), (0, 12 - t.shape[1])), constant_values=1) for t, _ in part]
            ),
            "original": np.array([t.shape for t, _ in part], np.int32),
            "id": np.arange(start, start + size),
            "image": np.full((size, 6, 8, 3), 90, np.uint8),
        }
        found = np.stack([np.pad(f, ((0, 12 - f.shape[0]), (0, 12 - f.shape[1])), constant_values=2) for _, f in part])
        metric.update(found, batch)
        start += size
    return metric


def test_equal_to_a_plain_confusion_loop_over_ragged_batches():
    expected = plain(images())
    metric = fill(MeanIoU(NAMES), images())
    np.testing.assert_array_equal(metric.matrix, expected)
    values = metric.compute()
    ious, accuracies = [], []
    for k in range(3):
        ious.append(expected[k, k] / (expected[k].sum() + expected[:, k].sum() - expected[k, k]))
        accuracies.append(expected[k, k] / expected[k].sum())
        assert values[f"class/{NAMES[k]}"] == pytest.approx(ious[-1], rel=1e-12)
    assert values["mIoU"] == pytest.approx(np.mean(ious), rel=1e-12)
    assert values["mean_accuracy"] == pytest.approx(np.mean(accuracies), rel=1e-12)
    assert values["pixel_accuracy"] == pytest.approx(np.trace(expected) / expected.sum(), rel=1e-12)
    assert values["images"] == 7
    assert "class/never" not in values
    assert "| never | nan | nan |" in values["table"]


def test_a_class_that_is_only_predicted_counts_against_the_mean():
    truth, found = np.zeros((2, 2), np.uint8), np.array([[0, 0], [0, 2]], np.uint8)
    result = scores(confusion(truth, found, 4))
    np.testing.assert_array_equal(result["iou"], [0.75, np.nan, 0.0, np.nan])
    assert result["mIoU"] == 0.375
    assert result["mean_accuracy"] == 0.75


def test_batching_does_not_matter():
    one, other = fill(MeanIoU(NAMES), images(), (7,)), fill(MeanIoU(NAMES), images(), (1,) * 7)
    np.testing.assert_array_equal(one.matrix, other.matrix)


def test_nothing_labeled_is_an_error():
    metric = MeanIoU(NAMES)
    with pytest.raises(DataError, match="no pixel"):
        metric.compute()


def test_predictions_are_written_as_the_datasets_masks_are(tmp_path):
    metric = MeanIoU(
        NAMES,
        2,
        tmp_path / "results.json",
        tmp_path / "masks",
        "house/{}.jpg".format,
        lambda labels: labels + np.uint8(1),
    )
    values = fill(metric, images()).compute()
    for i, (_, found) in enumerate(images()):
        picture = Image.open(tmp_path / "masks" / "house" / f"{i}.png")
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), found + 1)
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), colors(4)[found])
    text = json.loads((tmp_path / "results.json").read_text())
    np.testing.assert_array_equal(text["confusion"], metric.matrix)
    assert values["pictures"].ndim == 4
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        write_mask(tmp_path / "file" / "x.png", np.zeros((2, 2), np.uint8), np.arange(4))
