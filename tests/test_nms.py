import jax
import jax.numpy as jnp
import numpy as np
import pytest

from localmim_jax.detection.nms import nms
from tests.test_boxes import plain_iou


def greedy(boxes, scores, valid, threshold):
    keep = []
    for index in np.argsort(-scores, kind="stable"):
        if valid[index] and all(plain_iou(boxes[index], boxes[other]) <= threshold for other in keep):
            keep.append(index)
    return keep


def test_nms_equals_the_reference(goldens):
    golden = np.load(goldens / "detection.npz")
    boxes, scores = jnp.asarray(golden["nms/boxes"]), jnp.asarray(golden["nms/scores"])
    keep = np.flatnonzero(nms(boxes, scores, scores > 0.05, 0.5))
    expected = golden["nms/keep_iou0.5_score0.05"]
    assert set(keep) == set(expected)
    np.testing.assert_array_equal(keep[np.argsort(-np.asarray(scores)[keep], kind="stable")], expected)


@pytest.mark.parametrize("threshold", [0.1, 0.7])
def test_nms_equals_the_greedy_loop_on_crowded_boxes(threshold):
    rng = np.random.default_rng(3)
    corner = rng.uniform(0, 30, (3, 120, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(2, 30, corner.shape)], axis=-1).astype(np.float32)
    scores = rng.integers(0, 30, (3, 120)).astype(np.float32)  # many ties
    valid = rng.random((3, 120)) < 0.8
    found = jax.jit(jax.vmap(lambda *a: nms(*a, threshold)))(boxes, scores, valid)
    for image in range(3):
        expected = greedy(boxes[image].astype(np.float64), scores[image], valid[image], threshold)
        np.testing.assert_array_equal(np.flatnonzero(found[image]), sorted(expected))
    assert 0 < np.sum(found) < np.sum(valid)


def test_a_chain_of_boxes_keeps_every_other_one_and_nothing_valid_keeps_nothing():
    left = 4.0 * jnp.arange(40)
    chain = jnp.stack([left, jnp.zeros(40), left + 10, jnp.ones(40)], axis=-1)
    np.testing.assert_array_equal(nms(chain, -left, jnp.ones(40, bool), 0.3), np.arange(40) % 2 == 0)
    assert not np.any(nms(chain, -left, jnp.zeros(40, bool), 0.3))
