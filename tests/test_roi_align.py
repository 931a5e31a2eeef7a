import jax
import jax.numpy as jnp
import numpy as np
import pytest

from localmim_jax.detection import roi_align as module
from localmim_jax.detection.roi_align import pyramid_roi_align, roi_align, roi_level


@pytest.fixture(scope="module")
def golden(goldens):
    """Features [b, h, w, c], and the RoIs grouped by image with the places they came from."""
    file = dict(np.load(goldens / "detection.npz"))
    features = file["roi_align/features"].transpose(0, 2, 3, 1)
    places = [np.flatnonzero(file["roi_align/batch_index"] == image) for image in range(len(features))]
    return file, jnp.asarray(features), places


@pytest.mark.parametrize(("bins", "sampling_ratio"), [(7, 0), (14, 0), (7, 2)])
def test_roi_align_equals_the_reference(golden, bins, sampling_ratio):
    file, features, places = golden
    scale = float(file["roi_align/spatial_scale"])
    crop = jax.jit(lambda features, rois: roi_align(features, rois, scale, bins, sampling_ratio))
    for image, rows in enumerate(places):
        found = crop(features[image : image + 1], jnp.asarray(file["roi_align/rois"][rows])[None])[0]
        expected = file[f"roi_align/out_{bins}_sampling{sampling_ratio}"][rows].transpose(0, 2, 3, 1)
        np.testing.assert_allclose(found, expected, atol=2e-5)


def plain_roi_align(feature, box, scale, bins, samples):
    """One point after the other."""
    h, w, c = feature.shape
    left, top, right, bottom = np.asarray(box, np.float64) * scale - 0.5
    out = np.zeros((bins, bins, c))
    for i, j, k, m in np.ndindex(bins, bins, samples, samples):
        y = top + (bottom - top) / bins * (i + (k + 0.5) / samples)
        x = left + (right - left) / bins * (j + (m + 0.5) / samples)
        if y < -1 or y > h or x < -1 or x > w:
            continue
        y, x = np.clip(y, 0, h - 1), np.clip(x, 0, w - 1)
        y0, x0 = min(int(y), h - 1), min(int(x), w - 1)
        y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
        a, b = y - y0, x - x0
        out[i, j] += (1 - a) * ((1 - b) * feature[y0, x0] + b * feature[y0, x1])
        out[i, j] += a * ((1 - b) * feature[y1, x0] + b * feature[y1, x1])
    return out / samples**2


@pytest.mark.slow
def test_each_box_is_read_from_its_level_and_chunks_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    features = tuple(jnp.asarray(rng.normal(size=(1, 64 // 2**i, 48 // 2**i, 3)), jnp.float32) for i in range(4))
    sides = np.array([20.0, 111.0, 113.0, 180.0, 230.0, 5.0])
    left = rng.uniform(-20, 60, (6, 2))
    boxes = jnp.asarray(np.concatenate([left, left + sides[:, None]], axis=1), jnp.float32)
    levels = np.asarray(roi_level(boxes))
    np.testing.assert_array_equal(levels, [0, 0, 1, 1, 2, 0])
    found = pyramid_roi_align(features, boxes[None], (4, 8, 16, 32), 3, sampling_ratio=2)[0]
    for box, level, crop in zip(boxes, levels, found, strict=True):
        expected = plain_roi_align(features[level][0], box, 1 / (4 * 2**level), 3, 2)
        np.testing.assert_allclose(crop, expected, atol=2e-5)
    monkeypatch.setattr(module, "_CHUNK", 4)
    np.testing.assert_allclose(pyramid_roi_align(features, boxes[None], (4, 8, 16, 32), 3, 2)[0], found, atol=1e-5)


def test_levels_at_the_published_sizes_and_beyond():
    sides = np.array([0.0, 56.0, 111.9, 112.0, 224.0, 448.0, 2000.0], np.float32)
    boxes = jnp.stack([0 * sides, 0 * sides, sides, sides], axis=-1)
    np.testing.assert_array_equal(roi_level(boxes), [0, 0, 0, 1, 2, 3, 3])


def test_gradients_reach_the_feature_and_not_the_box():
    feature, boxes = jnp.ones((1, 8, 8, 1)), jnp.asarray([[[4.0, 4.0, 28.0, 28.0]]])
    feature_gradient, box_gradient = jax.grad(lambda f, b: roi_align(f, b, 0.25, 2).sum(), argnums=(0, 1))(
        feature, boxes
    )
    assert float(feature_gradient.sum()) == pytest.approx(4, rel=1e-5)
    assert not np.any(box_gradient)
