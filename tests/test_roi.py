import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from localmim_jax.detection import roi
from localmim_jax.detection.assign import AssignConfig
from localmim_jax.detection.boxes import ROI_STDS, decode, encode
from tests.test_nms import greedy

TRUTH = np.array([[[10, 10, 40, 40], [50, 8, 70, 30], [0, 0, 0, 0]]], np.float32)
VALID = np.array([[True, True, False]])


def test_samples_include_the_truth_itself_and_say_what_they_matched():
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 60, (1, 30, 2))
    proposals = np.concatenate([corner, corner + rng.uniform(5, 30, corner.shape)], axis=-1).astype(np.float32)
    config = AssignConfig(0.5, 0.5, 0.5, num_samples=16, positive_fraction=0.25)
    draw = jax.jit(lambda *arrays: roi.sample_rois(jax.random.key(0), *arrays, config))
    rois, matched, valid = draw(proposals, np.ones((1, 30), bool), TRUTH, VALID)
    assert rois.shape == (1, 16, 4)
    assert valid.all()
    positive = np.asarray(matched[0]) >= 0
    assert 2 <= positive.sum() <= 4
    assert positive[: positive.sum()].all(), "positives come first"
    own = {tuple(box) for box in np.asarray(rois[0])[positive]}
    assert {tuple(TRUTH[0, 0]), tuple(TRUTH[0, 1])} <= own
    # Nothing to find: only negatives, and none of them is the padding's empty box.
    rois, matched, valid = draw(proposals, np.ones((1, 30), bool), 0 * TRUTH, VALID & False)
    assert (matched == -1).all()
    assert (rois[0][valid[0]][:, 2] > 0).all()


def test_box_loss_equals_a_plain_loop():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(1, 4, 4)).astype(np.float32)
    deltas = rng.normal(size=(1, 4, 3, 4)).astype(np.float32)
    rois = np.array([[[12, 9, 41, 38], [48, 8, 72, 33], [0, 0, 9, 9], [5, 5, 6, 6]]], np.float32)
    matched, valid = np.array([[0, 1, -1, -1]]), np.array([[True, True, True, False]])
    labels = np.array([[2, 0, 0]], np.int32)
    found = jax.jit(roi.box_loss)(logits, deltas, rois, matched, valid, TRUTH, labels)
    targets = [2, 0, 3]
    soft = np.log(np.exp(logits[0]).sum(axis=1))
    entropy = sum(soft[i] - logits[0, i, target] for i, target in enumerate(targets)) / 3
    distance = sum(
        np.abs(
            deltas[0, i, targets[i]] - np.asarray(encode(*map(jnp.asarray, (rois[0, i], TRUTH[0, i])), ROI_STDS))
        ).sum()
        for i in (0, 1)
    )
    right = np.mean([logits[0, i].argmax() == target for i, target in enumerate(targets)])
    np.testing.assert_allclose(found, [entropy, distance / 3, right], rtol=1e-5)


def test_mask_targets_are_the_mask_as_the_roi_sees_it():
    """A disc of radius 12 at (25, 25), given over its box; RoIs that cut it, miss it, and surround it."""
    size = 112
    cell = (np.arange(size) + 0.5) / size * 24 - 12
    disc = (cell[:, None] ** 2 + cell[None] ** 2 < 144).astype(np.uint8)
    truth = np.array([13, 13, 37, 37], np.float32)
    rois = np.array(
        [[13, 13, 37, 37], [25, 10, 45, 40], [60, 60, 80, 90], [0, 0, 50, 50], [13, 25, 37, 25.5]], np.float32
    )
    found = jax.jit(roi.mask_targets)(
        jnp.asarray(np.tile(disc, (1, len(rois), 1, 1))),
        jnp.asarray(np.tile(truth, (1, len(rois), 1))),
        jnp.asarray(rois[None]),
    )[0]
    for target, (left, top, right, bottom) in zip(np.asarray(found), rois, strict=True):
        x = left + (np.arange(28) + 0.5) / 28 * (right - left) - 25
        y = top + (np.arange(28) + 0.5) / 28 * (bottom - top) - 25
        expected = y[:, None] ** 2 + x[None] ** 2 < 144
        assert np.mean(target != expected) < 0.02
    assert found[2].sum() == 0
    assert 0 < found[1].sum() < found[0].sum()
    assert set(np.unique(found)) == {0.0, 1.0}


def test_mask_loss_counts_positive_rois_only():
    logits = jnp.stack([jnp.full((28, 28), 2.0), jnp.full((28, 28), 50.0)])[None]
    targets = jnp.zeros((1, 2, 28, 28)).at[0, 0, :14].set(1.0)
    expected = np.log1p(np.exp(2.0)) - 1.0
    found = roi.mask_loss(logits, targets, jnp.asarray([[True, False]]))
    assert float(found) == pytest.approx(expected, rel=1e-5)
    assert float(roi.mask_loss(logits, targets, jnp.asarray([[False, False]]))) == 0.0


def test_detections_equal_a_plain_loop_over_classes():
    rng = np.random.default_rng(4)
    corner = rng.uniform(0, 40, (2, 25, 2))
    rois = np.concatenate([corner, corner + rng.uniform(8, 30, corner.shape)], axis=-1).astype(np.float32)
    logits = 2 * rng.normal(size=(2, 25, 4)).astype(np.float32)
    deltas = rng.normal(size=(2, 25, 3, 4)).astype(np.float32)
    valid, sizes = rng.random((2, 25)) < 0.9, np.array([[64, 64], [50, 60]], np.float32)
    found = jax.jit(lambda *a: roi.select(*a, 0.05, 20))(logits, deltas, rois, valid, sizes)
    for image in range(2):
        scores = np.exp(logits[image]) / np.exp(logits[image]).sum(axis=1, keepdims=True)
        entries = []
        for label in range(3):
            boxes = np.asarray(decode(jnp.asarray(rois[image]), jnp.asarray(deltas[image, :, label]), ROI_STDS))
            boxes = np.clip(boxes, 0, np.tile(sizes[image][::-1], 2)).astype(np.float64)
            usable = valid[image] & (scores[:, label] > 0.05)
            keep = greedy(boxes, scores[:, label], usable, 0.5)
            entries += [(scores[i, label], label, boxes[i]) for i in keep]
        entries.sort(key=lambda entry: -entry[0])
        assert len(entries) > 20
        assert found["survivors"][image] == len(entries)
        assert found["valid"][image].all()
        np.testing.assert_allclose(found["scores"][image], [entry[0] for entry in entries[:20]], rtol=1e-5)
        np.testing.assert_array_equal(found["labels"][image], [entry[1] for entry in entries[:20]])
        np.testing.assert_allclose(found["boxes"][image], [entry[2] for entry in entries[:20]], atol=1e-3)


def test_the_mask_of_the_asked_class_comes_out():
    levels = tuple(jnp.ones((1, 16 // 2**i, 16 // 2**i, 4)) for i in range(4))
    rois = jnp.tile(jnp.asarray([[[4.0, 4.0, 40.0, 40.0]]]), (1, 3, 1))

    @jax.jit
    def predict():
        head = roi.MaskHead(4, 3, num_convs=1, sampling_ratio=0, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
        head.predict.bias[...] = jnp.asarray([0.0, 100.0, -100.0])
        return head(levels, rois, jnp.asarray([[2, 0, 1]]))

    logits = predict()
    assert (logits.shape, logits.dtype) == ((1, 3, 28, 28), jnp.float32)
    assert logits[0, 0].max() < -50 < logits[0, 1].min()
    assert logits[0, 1].max() < 50 < logits[0, 2].min()
