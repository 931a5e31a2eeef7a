import numpy as np
import pytest

from localmim_jax.convert import interpolate

GRID = np.array([[0.0, 1, 4], [2, -1, 3], [5, 0, 2]], np.float32)
# torch.nn.functional.interpolate(GRID, size=..., mode=..., align_corners=False), torch 2.13
TORCH = {
    ("bicubic", (4, 2)): [
        [0.0451110, 3.4536021],
        [0.5106890, 2.5487559],
        [2.2390959, 1.6156729],
        [3.9847300, 1.3267940],
    ],
    ("bicubic", (2, 5)): [
        [0.3319060, 0.1739380, 0.5117190, 2.5412190, 4.1250939],
        [4.8406258, 2.3927181, -0.296875, 0.8884540, 2.4302821],
    ],
    ("bilinear", (4, 2)): [[0.25, 3.25], [0.875, 2.46875], [2.1875, 1.8125], [3.75, 1.5]],
    ("bilinear", (2, 5)): [[0.5, 0.5, 0.5, 2.45, 3.75], [4.25, 2.45, -0.25, 1.25, 2.25]],
}


@pytest.mark.parametrize(("method", "grid"), TORCH)
def test_interpolation_equals_torch(method, grid):
    found = interpolate.resize_grid(GRID.reshape(9, 1), (3, 3), grid, method)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.reshape(grid), TORCH[method, grid], atol=1e-6)


def test_the_same_grid_is_left_alone_bit_for_bit():
    table = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
    np.testing.assert_array_equal(interpolate.resize_grid(table, (3, 4), (3, 4), "bicubic"), table)


@pytest.mark.parametrize("method", ["bicubic", "bilinear"])
def test_a_constant_stays_one(method):
    found = interpolate.resize_grid(np.full((49, 2), 3.0, np.float32), (7, 7), (5, 12), method)
    np.testing.assert_allclose(found, 3.0, rtol=1e-6)


def test_the_class_tokens_row_stays():
    table = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    found = interpolate.resize_positions(table, (3, 3), (4, 2), "bilinear")
    np.testing.assert_array_equal(found[0], table[0])
    np.testing.assert_array_equal(found[1:], interpolate.resize_grid(table[1:], (3, 3), (4, 2), "bilinear"))


def test_windows_of_bias_tables():
    assert [interpolate.window_of(rows) for rows in (169, 23**2, 1, 168, 196, 0)] == [7, 12, 1, None, None, None]
    assert interpolate.resize_bias_table(np.ones((169, 3), np.float32), 7, 12).shape == (529, 3)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_channels(channels):
    kernel = np.random.default_rng(0).normal(size=(2, 2, 3, 5)).astype(np.float32)
    found = interpolate.resize_channels(kernel, channels)
    assert (found.shape, found.dtype) == ((2, 2, channels, 5), np.float32)
    np.testing.assert_allclose(found.sum(axis=2), kernel.sum(axis=2), atol=1e-6)
    if channels >= 3:
        np.testing.assert_allclose(found[:, :, 2], kernel[:, :, 2] / len(range(2, channels, 3)), rtol=1e-6)
