import numpy as np
import pytest

from localmim_jax.detection.paste import paste


def plain(mask, box, size):
    """One pixel after the other, zeros around the mask."""
    s = len(mask)
    padded = np.zeros((s + 2, s + 2))
    padded[1:-1, 1:-1] = mask
    out = np.zeros(size, np.uint8)
    for y, x in np.ndindex(*size):
        v = (y + 0.5 - box[1]) / (box[3] - box[1]) * s - 0.5
        u = (x + 0.5 - box[0]) / (box[2] - box[0]) * s - 0.5
        if not (-1 < v < s and -1 < u < s):
            continue
        i, j = int(np.floor(v)), int(np.floor(u))
        a, b = v - i, u - j
        patch = padded[i + 1 : i + 3, j + 1 : j + 3]
        value = (1 - a) * ((1 - b) * patch[0, 0] + b * patch[0, 1]) + a * ((1 - b) * patch[1, 0] + b * patch[1, 1])
        out[y, x] = value >= 0.5
    return out


@pytest.mark.parametrize(
    "box", [(3.2, 4.7, 21.5, 17.1), (-6.0, -3.0, 9.5, 30.0), (20.1, 10.2, 22.9, 11.4), (0, 0, 30, 24)]
)
def test_paste_equals_a_plain_loop(box):
    mask = np.random.default_rng(0).random((28, 28))
    found = paste(mask, np.array(box), (24, 30))
    np.testing.assert_array_equal(found, plain(mask, box, (24, 30)))
    assert found.any()


def test_boxes_without_area_or_outside_paste_nothing():
    for box in [(5, 5, 5, 9), (9, 9, 5, 5), (40, 5, 50, 9), (-20, -20, -5, -5)]:
        assert not paste(np.ones((28, 28)), np.array(box, np.float32), (24, 30)).any()


def test_a_full_mask_fills_its_box():
    found = paste(np.ones((28, 28), np.float32), np.array([4.0, 6.0, 20.0, 16.0]), (24, 30))
    expected = np.zeros((24, 30))
    expected[6:16, 4:20] = 1
    np.testing.assert_array_equal(found, expected)
