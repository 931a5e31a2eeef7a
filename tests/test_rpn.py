import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from localmim_jax.detection.anchors import anchor_centers, anchors
from localmim_jax.detection.assign import AssignConfig
from localmim_jax.detection.boxes import RPN_STDS, decode, encode
from localmim_jax.detection.rpn import NMS_THRESHOLD, RPN, propose, rpn_loss
from tests.test_boxes import plain_iou
from tests.test_nms import greedy

GRIDS = ((6, 8), (3, 4))
EVERYTHING = AssignConfig(0.5, 0.3, 0.3, num_samples=1000, positive_fraction=0.5)  # more than there are anchors


@pytest.fixture(scope="module")
def given():
    rng = np.random.default_rng(0)
    prior = [anchors(grid, stride, scale=3.0) for grid, stride in zip(GRIDS, (8, 16), strict=True)]
    logits = [rng.normal(size=(2, len(p))).astype(np.float32) for p in prior]
    deltas = [0.3 * rng.normal(size=(2, len(p), 4)).astype(np.float32) for p in prior]
    sizes = np.array([[48, 64], [30, 40]], np.float32)
    return prior, logits, deltas, sizes


def test_proposals_equal_a_plain_loop(given):
    prior, logits, deltas, sizes = given
    boxes, valid = jax.jit(lambda *a: propose(*a, pre_nms_top_n=20, post_nms_top_n=12))(
        list(map(jnp.asarray, prior)), *given[1:]
    )
    for image in range(2):
        found = []
        for p, logit, delta in zip(prior, logits, deltas, strict=True):
            best = np.argsort(-logit[image], kind="stable")[:20]
            moved = np.asarray(decode(jnp.asarray(p[best]), jnp.asarray(delta[image][best]), RPN_STDS))
            h, w = sizes[image]
            moved = np.clip(moved, 0, [w, h, w, h])
            area = (moved[:, 2] > moved[:, 0]) & (moved[:, 3] > moved[:, 1])
            keep = greedy(moved.astype(np.float64), logit[image][best], area, NMS_THRESHOLD)
            found += [(logit[image][best][i], moved[i]) for i in keep]
        expected = [box for _, box in sorted(found, key=lambda entry: -entry[0])[:12]]
        assert valid[image].sum() == len(expected)
        np.testing.assert_allclose(boxes[image][: len(expected)], expected, atol=1e-3)
        assert len(found) < 40, "something was suppressed"


def test_the_loss_equals_a_plain_loop(given):
    prior, logits, deltas, sizes = given
    truth = np.array([[[5, 5, 30, 28], [40, 20, 62, 47]], [[8, 4, 30, 26], [0, 0, 0, 0]]], np.float32)
    valid = np.array([[True, True], [True, False]])
    centers = np.concatenate([anchor_centers(grid, stride) for grid, stride in zip(GRIDS, (8, 16), strict=True)])
    found = jax.jit(lambda *a: rpn_loss(jax.random.key(0), *a, EVERYTHING))(
        list(map(jnp.asarray, prior)), *given[1:], centers, truth, valid
    )
    boxes = np.concatenate(prior).astype(np.float64)
    entropy, distance, count, positives = 0.0, 0.0, 0, 0
    for image in range(2):
        logit, delta = np.concatenate(logits, axis=1)[image], np.concatenate(deltas, axis=1)[image]
        real = truth[image][valid[image]]
        overlap = np.array([[plain_iou(box, t) for t in real] for box in boxes])
        for i, row in enumerate(overlap):
            if not (centers[i] < sizes[image]).all():
                continue
            best_of = [t for t in range(len(real)) if row[t] == overlap[:, t].max() and row[t] >= 0.3]
            if row.max() >= 0.5 or best_of:
                target = real[best_of[-1] if best_of else row.argmax()]
                goal = encode(
                    jnp.asarray(prior[0 if i < len(prior[0]) else 1][i % len(prior[0])]), jnp.asarray(target), RPN_STDS
                )
                entropy += np.log1p(np.exp(-logit[i]))
                distance += np.abs(delta[i] - np.asarray(goal)).sum()
                positives += 1
            elif row.max() < 0.3:
                entropy += np.log1p(np.exp(logit[i]))
            else:
                continue
            count += 1
    assert positives >= 3
    np.testing.assert_allclose(found, [entropy / count, distance / count, positives / 2], rtol=1e-4)


def test_predictions_are_float32_and_in_the_anchors_order():
    model = RPN(4, anchor_scale=8.0, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    x = jnp.zeros((1, 3, 5, 4)).at[0, 1, 2].set(1.0)
    logits, deltas = model((x, x, x, x, x))
    assert logits[0].dtype == deltas[0].dtype == jnp.float32
    assert (logits[0].shape, deltas[0].shape) == ((1, 45), (1, 45, 4))
    moved = np.abs(np.asarray(logits[0][0])).reshape(3, 5, 3).max(axis=-1)
    assert moved[1, 2] > 0
    assert not moved[:, 4].any(), "three cells away, beyond the 3x3 convolution"
    assert [len(a) for a in model.anchors((x, x, x, x, x))] == [45] * 5
