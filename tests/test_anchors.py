import numpy as np
import pytest

from localmim_jax.detection.anchors import anchor_centers, anchors


@pytest.mark.parametrize("level", range(5))
def test_anchors_equal_the_reference(goldens, level):
    expected = np.load(goldens / "detection.npz")[f"anchors/{level}"]
    grid = [-(-16 // 2**level), -(-24 // 2**level)]
    found = anchors(tuple(grid), 4 * 2**level)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_centers_belong_to_their_anchors():
    boxes, centers = anchors((3, 5), 8), anchor_centers((3, 5), 8)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    np.testing.assert_allclose(centers[:, ::-1], middle, atol=1e-4)
