import jax.numpy as jnp
import numpy as np
import pytest

from localmim_jax.detection import boxes
from localmim_jax.detection.boxes import ROI_STDS, RPN_STDS


@pytest.fixture(scope="module")
def golden(goldens):
    return dict(np.load(goldens / "detection.npz"))


def plain_iou(a, b):
    w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h
    return w * h / union if union > 0 else 0.0


def test_iou_equals_a_plain_loop(golden):
    some, truth = golden["assign/priors"][:40], golden["assign/gt"]
    found = boxes.iou(jnp.asarray(some), jnp.asarray(truth))
    np.testing.assert_allclose(found, [[plain_iou(a, b) for b in truth] for a in some], atol=1e-6)
    assert np.any(np.asarray(found) > 0.3)


def test_boxes_without_area_overlap_nothing():
    point = jnp.asarray([[3.0, 3.0, 3.0, 3.0], [5.0, 5.0, 2.0, 2.0]])
    box = jnp.asarray([[0.0, 0.0, 10.0, 10.0]])
    assert not np.any(boxes.iou(point, box))
    assert not np.any(boxes.iou(point, point))
    assert np.all(np.isfinite(boxes.encode(point, box, RPN_STDS)))
    assert np.all(np.isfinite(boxes.encode(box, point, RPN_STDS)))


@pytest.mark.parametrize(("kind", "stds"), [("rpn", RPN_STDS), ("rcnn", ROI_STDS)])
def test_encode_and_decode_equal_the_reference(golden, kind, stds):
    given = {key: jnp.asarray(golden[f"coder/{kind}/{key}"]) for key in ("boxes", "gt", "deltas")}
    np.testing.assert_allclose(
        boxes.encode(given["boxes"], given["gt"], stds), golden[f"coder/{kind}/encoded"], rtol=1e-4, atol=1e-5
    )
    decoded = boxes.clip(boxes.decode(given["boxes"], given["deltas"], stds), jnp.asarray([220.0, 260.0]))
    np.testing.assert_allclose(decoded, golden[f"coder/{kind}/decoded"], atol=1e-4)


@pytest.mark.parametrize("stds", [RPN_STDS, ROI_STDS])
def test_decode_inverts_encode_in_float32_whatever_is_given(golden, stds):
    box, truth = jnp.asarray(golden["coder/rpn/boxes"]), jnp.asarray(golden["coder/rpn/gt"])
    np.testing.assert_allclose(boxes.decode(box, boxes.encode(box, truth, stds), stds), truth, atol=1e-3)
    assert boxes.decode(box.astype(jnp.bfloat16), jnp.zeros((len(box), 4), jnp.bfloat16), stds).dtype == jnp.float32


def test_clip_takes_a_size_for_each_image():
    given = jnp.broadcast_to(jnp.asarray([-5.0, -5.0, 50.0, 50.0]), (2, 3, 4))
    found = boxes.clip(given, jnp.asarray([[10.0, 20.0], [30.0, 40.0]]))
    np.testing.assert_array_equal(found[0], np.tile([0, 0, 20, 10], (3, 1)))
    np.testing.assert_array_equal(found[1], np.tile([0, 0, 40, 30], (3, 1)))


def test_a_decoded_side_is_at_most_62_times_the_boxs():
    found = boxes.decode(jnp.asarray([[0.0, 0.0, 16.0, 16.0]]), jnp.asarray([[0.0, 0.0, 99.0, -99.0]]), RPN_STDS)
    np.testing.assert_allclose(found[0, 2:] - found[0, :2], [1000, 0.256], rtol=1e-4)
