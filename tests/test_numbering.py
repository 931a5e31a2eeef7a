import numpy as np
import pytest

from localmim_jax.errors import ConfigError
from localmim_jax.segmentation.numbering import IGNORED, Numbering, UnknownValue

EVERY = np.arange(256).reshape(16, 16)


@pytest.mark.parametrize(
    ("numbering", "pairs"),
    [
        (Numbering(3, True), {0: IGNORED, 1: 0, 2: 1, 3: 2, 255: IGNORED}),
        (Numbering(3, False), {0: 0, 1: 1, 2: 2, 255: IGNORED}),
        (Numbering(2, True, (0, 255)), {0: 0, 255: 1}),
        (Numbering(2, True, (255, 7)), {0: IGNORED, 7: 1, 255: 0}),
        (Numbering(2, False, (7, 26)), {7: 0, 26: 1, 255: IGNORED}),
        (Numbering(254, True), {i: i - 1 for i in range(1, 255)} | {0: IGNORED, 255: IGNORED}),
        (Numbering(255, False), {i: i for i in range(256)}),
    ],
)
def test_every_value_has_its_label_or_is_refused_and_goes_back(numbering, pairs):
    for value in range(-1, 300):
        stored = np.array([[value]], np.int32)
        if value not in pairs:
            with pytest.raises(UnknownValue, match=f"^{value}$"):
                numbering.labels(stored)
            continue
        label = numbering.labels(stored)
        assert (label.dtype, label.tolist()) == (np.uint8, [[pairs[value]]])
        if pairs[value] != IGNORED:
            assert numbering.stored(label).tolist() == [[value]]


@pytest.mark.parametrize(
    ("count", "zero_ignored", "values", "message"),
    [
        (255, True, None, "255 classes are listed, but masks can have at most 254"),
        (256, False, None, "masks can have at most 255"),
        (2, True, (0, 1, 2), "has 3 values, and 2 classes are listed"),
        (2, True, (1, 1), "different whole numbers"),
        (2, True, (0, 256), "from 0 to 255"),
        (2, True, (-1, 1), "from 0 to 255"),
    ],
)
def test_what_a_mask_cannot_tell_apart_is_refused(count, zero_ignored, values, message):
    with pytest.raises(ConfigError, match=message):
        Numbering(count, zero_ignored, values)
