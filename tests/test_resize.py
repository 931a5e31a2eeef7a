import jax.numpy as jnp
import numpy as np
import pytest

from localmim_jax.ops.resize import adaptive_average_pool, apply_weights, bilinear_weights, resize_bilinear


def plain_resize(x, size):
    """[h, w, c] -> [*size, c], pixel by pixel."""
    out = np.zeros((*size, x.shape[-1]))
    for i, j in np.ndindex(size):
        places = ((i, size[0], x.shape[0]), (j, size[1], x.shape[1]))
        y, u = (min(max((k + 0.5) * old / new - 0.5, 0), old - 1) for k, new, old in places)
        top, left = int(y), int(u)
        below, right = min(top + 1, x.shape[0] - 1), min(left + 1, x.shape[1] - 1)
        dy, dx = y - top, u - left
        upper = (1 - dx) * x[top, left] + dx * x[top, right]
        lower = (1 - dx) * x[below, left] + dx * x[below, right]
        out[i, j] = (1 - dy) * upper + dy * lower
    return out


@pytest.mark.parametrize("size", [(9, 12), (5, 7), (3, 20), (1, 1)])
def test_resizing_is_pixel_by_pixel_interpolation(strict_dtypes, size):
    x = np.random.default_rng(0).normal(size=(2, 5, 7, 3)).astype(np.float32)
    found = resize_bilinear(jnp.asarray(x), size)
    for image, expected in zip(found, x, strict=True):
        np.testing.assert_allclose(image, plain_resize(expected, size), atol=1e-5)


def test_part_of_a_canvas_is_resized_as_if_alone():
    """What lies beyond the image on its canvas has no influence, and places beyond the output are zero."""
    x = np.random.default_rng(0).normal(size=(1, 8, 9, 2)).astype(np.float32)
    rows, columns = bilinear_weights(12, 8, 10.0, 5.0), bilinear_weights(16, 9, 13.0, 7.0)
    found = apply_weights(jnp.asarray(x), rows, columns)[0]
    np.testing.assert_allclose(found[:10, :13], plain_resize(x[0, :5, :7], (10, 13)), atol=1e-5)
    assert not np.asarray(found)[10:].any()
    assert not np.asarray(found)[:, 13:].any()


def test_an_offset_moves_and_a_mirror_reverses():
    plain = np.asarray(bilinear_weights(6, 4, 6.0, 4.0))
    moved = np.asarray(bilinear_weights(9, 4, 6.0, 4.0, offset=2.0))
    np.testing.assert_array_equal(moved[2:8], plain)
    assert not moved[:2].any()
    assert not moved[8:].any()
    np.testing.assert_array_equal(bilinear_weights(6, 4, 6.0, 4.0, mirrored=True), plain[::-1])


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_adaptive_pooling_is_the_mean_of_each_bin(size):
    """Also on a map smaller than the number of bins."""
    x = np.random.default_rng(0).normal(size=(1, 4, 5, 2)).astype(np.float32)
    found = adaptive_average_pool(jnp.asarray(x), size)[0]
    for i, j in np.ndindex(size, size):
        rows = slice(i * 4 // size, -(-(i + 1) * 4 // size))
        columns = slice(j * 5 // size, -(-(j + 1) * 5 // size))
        np.testing.assert_allclose(found[i, j], x[0, rows, columns].mean(axis=(0, 1)), atol=1e-6)
