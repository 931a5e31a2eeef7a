import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from localmim_jax.detection.coco_masks import mask_area, run_lengths, usable_mask

TRIANGLE = [1, 1, 9, 1, 1, 9]


def drawn(seed, size=(13, 29), fraction=0.4):
    return (np.random.default_rng(seed).random(size) < fraction).astype(np.uint8)


def lengths_of(mask):
    """By hand: runs down the columns, zeros first."""
    flat = np.concatenate([[0], mask.ravel(order="F"), [2]])
    edges = np.flatnonzero(np.diff(flat))
    return np.diff([0, *edges]).tolist()


@pytest.mark.parametrize("fraction", [0.0, 0.02, 0.4, 1.0])
def test_compressed_run_lengths_are_those_of_the_mask(fraction):
    for seed, size in enumerate([(13, 29), (1, 1), (300, 500), (2000, 3)]):
        mask = drawn(seed, size, fraction)
        text = coco_mask.encode(np.asfortranarray(mask))["counts"].decode()
        assert run_lengths(text) == lengths_of(mask)
        assert run_lengths(lengths_of(mask)) == lengths_of(mask)


@pytest.mark.parametrize(
    "counts",
    ["", "é", "\n", "P" * 9, "0P", "Z", "n" * 200, [1, -1], [1.5], [True], ["1"], [None], None, 7, {}, [1e400]],
)
def test_damaged_run_lengths_are_none(counts):
    found = run_lengths(counts)
    assert found is None or sum(found) != 40 * 60
    assert usable_mask({"size": [40, 60], "counts": counts}, 40, 60) == ([], "with a damaged mask")


def test_the_usable_part_of_a_mask():
    whole = usable_mask([TRIANGLE, [1, 2, 3, 4], [1, 2, 3, 4, 5], [*TRIANGLE, 3]], 40, 60)
    assert whole == ([TRIANGLE], "")
    for bad in (float("nan"), float("inf"), 1e300, 10**400, -1e9, "1", None, True):
        assert usable_mask([[*TRIANGLE, bad, 5]], 40, 60) == ([], "without a mask")
    for nothing in (None, [], [[]], 3, "abc", TRIANGLE, [TRIANGLE[:4]], [{}]):
        assert usable_mask(nothing, 40, 60) == ([], "without a mask")
    lengths = lengths_of(drawn(0, (40, 60)))
    assert usable_mask({"size": [40, 60], "counts": lengths}, 40, 60)[1] == ""
    assert usable_mask({"size": [40.0, 60.0], "counts": lengths}, 40, 60)[0]["size"] == [40, 60]
    assert usable_mask({"size": [60, 40], "counts": lengths}, 40, 60)[1] == "with a mask of another size"
    assert usable_mask({"size": [40, 60], "counts": [*lengths, 1]}, 40, 60)[1] == "with a damaged mask"
    assert usable_mask({"size": [40, 60], "counts": [2400]}, 40, 60)[1] == "without a mask"


def test_areas_are_pixels():
    mask = drawn(3, (40, 60))
    text = coco_mask.encode(np.asfortranarray(mask))["counts"].decode()
    for counts in (text, lengths_of(mask)):
        usable, _ = usable_mask(json.loads(json.dumps({"size": [40, 60], "counts": counts})), 40, 60)
        assert mask_area(usable, 40, 60) == mask.sum()
    assert mask_area([[10, 10, 30, 10, 30, 30, 10, 30]], 40, 60) == 400
    assert mask_area([], 40, 60) == 0
