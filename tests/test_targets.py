import jax
import jax.numpy as jnp
import numpy as np
import pytest

from localmim_jax.method.targets import hog_pyramid, image_gradients, make_targets, normalized_pixels
from tests.defaults import target_config

pytestmark = pytest.mark.usefixtures("strict_dtypes")


def images(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def hog_by_loops(image, cell, bins, bias=(0.0, 0.0)):
    """The definition, one pixel at a time, in float64."""
    h, w, channels = image.shape
    padded = np.pad(image.astype(np.float64), ((1, 1), (1, 1), (0, 0)), mode="reflect")
    sobel = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]])
    cells = np.zeros((h // cell, w // cell, channels, bins))
    for i in range(h):
        for j in range(w):
            for c in range(channels):
                patch = padded[i : i + 3, j : j + 3, c]
                gx, gy = (patch * sobel).sum() + bias[0], (patch * sobel.T).sum() + bias[1]
                bin_index = int(np.floor(np.arctan2(gx, gy) / np.pi * bins)) % bins
                cells[i // cell, j // cell, c, bin_index] += np.hypot(gx, gy) / cell**2
    norm = np.maximum(np.linalg.norm(cells, axis=-1, keepdims=True), 1e-12)
    return (cells / norm).reshape(-1, channels * bins)


@pytest.mark.parametrize(
    ("bins", "cells", "bias"), [(9, (4, 8), (0.0, 0.0)), (7, (2, 6, 4), (0.0, 0.0)), (18, (4,), (0.2, -0.1))]
)
def test_hog_is_its_definition(bins, cells, bias):
    """Interior cells only: on the border gx or gy is an exact zero, where the loops' rounding picks a bin."""
    picture = images((1, 24, 24, 2))
    pyramid = hog_pyramid(jnp.asarray(picture), cells, bins, bias)
    for cell, target in zip(cells, pyramid, strict=True):
        side = 24 // cell
        expected = hog_by_loops(picture[0], cell, bins, bias).reshape(side, side, -1)
        found = np.asarray(target[0]).reshape(side, side, -1)
        np.testing.assert_allclose(found[1:-1, 1:-1], expected[1:-1, 1:-1], atol=2e-6)


def test_a_flat_image_has_no_gradient_anywhere():
    """Exactly zero, not a unit vector grown from rounding noise."""
    for value in (0.1, 1.7, -2.3):
        (target,) = hog_pyramid(jnp.full((1, 16, 16, 3), value), (8,), 9)
        np.testing.assert_array_equal(target, 0)


def test_reflection_makes_border_gradients_exactly_zero():
    gx, gy = image_gradients(jnp.asarray(images((8, 8, 1))))
    np.testing.assert_array_equal(gx[:, jnp.asarray([0, -1])], 0)
    np.testing.assert_array_equal(gy[jnp.asarray([0, -1])], 0)
    assert np.abs(np.asarray(gx[:, 1:-1])).min() > 0


def test_an_edge_votes_for_one_orientation():
    """A vertical edge has gy = 0 and gx = +-4: atan2 gives half a turn's middle, bin bins // 2 or the one below."""
    picture = np.zeros((1, 16, 16, 1), np.float32)
    picture[:, :, 8:] = 1
    (target,) = hog_pyramid(jnp.asarray(picture), (16,), 6)
    np.testing.assert_allclose(target[0, 0], np.eye(6, dtype=np.float32)[3], atol=1e-6)


def test_pyramid_equals_each_scale_alone():
    picture = jnp.asarray(images((2, 32, 16, 3)))
    together = hog_pyramid(picture, (4, 8, 16), 18)
    for cell, target in zip((4, 8, 16), together, strict=True):
        np.testing.assert_allclose(target, hog_pyramid(picture, (cell,), 18)[0], atol=2e-6)


def test_pixels_are_normalized_with_the_unbiased_variance():
    picture = images((2, 8, 12, 3))
    target = normalized_pixels(jnp.asarray(picture), 4)
    patch = picture[1, 4:8, 8:12].reshape(-1)
    expected = (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + 1e-6)
    np.testing.assert_allclose(target[1, 5], expected, atol=1e-5)
    np.testing.assert_array_equal(normalized_pixels(jnp.ones((1, 4, 4, 3)), 4), 0)


def test_no_gradient_flows_into_targets():
    def total(pixels):
        return sum(target.sum() for target in make_targets(pixels, target_config(cells=(4, 8))))

    np.testing.assert_array_equal(jax.grad(total)(jnp.asarray(images((1, 8, 8, 3)))), 0)


@pytest.mark.parametrize("kind", ["hog", "pixels"])
def test_a_batch_divided_over_devices_stays_divided(kind):
    mesh = jax.make_mesh((8,), ("data",))
    batch = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    config = target_config(kind=kind, cells=(4, 8))
    step = jax.jit(lambda pixels: make_targets(pixels, config), in_shardings=batch, out_shardings=batch)
    text = step.lower(jnp.zeros((8, 16, 16, 3), jnp.float32)).compile().as_text()
    assert "num_partitions=8" in text
    assert not any(kind in text for kind in ("all-gather", "all-to-all", "collective-permute", "all-reduce"))
