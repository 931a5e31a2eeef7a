"""Tables of positions, and the resizing of all that depends on image size, window or channels: interpolated, never
drawn anew, so that what was learned stays."""

import math

import numpy as np

from localmim_jax.models.positions import sincos_2d

_CUBIC = -0.75  # of PyTorch's bicubic interpolation; jax.image.resize and Pillow have -0.5


def resize_grid(table: np.ndarray, grid: tuple[int, int], new_grid: tuple[int, int], method: str) -> np.ndarray:
    """Interpolates over the two axes of a grid, as PyTorch does without aligned corners.

    Args:
        table: float32 [rows * columns, c], row-major.
        grid: (rows, columns) of it.
        new_grid: (rows, columns) wanted.
        method: "bicubic" or "bilinear".

    Returns:
        float32 [new rows * new columns, c].
    """
    if grid == new_grid:
        return table
    values = table.reshape(*grid, -1).astype(np.float64)
    down, across = (_weights(old, new, method) for old, new in zip(grid, new_grid, strict=True))
    values = np.einsum("ar,bc,rcd->abd", down, across, values, optimize=True)
    return values.reshape(new_grid[0] * new_grid[1], -1).astype(np.float32)


def resize_positions(table: np.ndarray, grid: tuple[int, int], new_grid: tuple[int, int], method: str) -> np.ndarray:
    """A ViT's positions for another grid of patches, float32 [p + rows * columns, d]; p rows of prefix tokens stay.

    `method` is "bicubic" in fine-tuning and "bilinear" in segmentation (docs/method.md).
    """
    prefix = len(table) - grid[0] * grid[1]
    return np.concatenate([table[:prefix], resize_grid(table[prefix:], grid, new_grid, method)])


def fixed_positions(grid: tuple[int, int], width: int, prefix: int = 1) -> np.ndarray:
    """The sine-cosine table of a grid after `prefix` rows of zeros: float32 [prefix + rows * columns, width]."""
    return np.concatenate([np.zeros((prefix, width), np.float32), sincos_2d(grid, width)])


def resize_bias_table(table: np.ndarray, window: int, new_window: int) -> np.ndarray:
    """A relative position bias table for another window, bicubically: [(2w - 1)^2, heads] -> [(2w' - 1)^2, heads]."""
    old, new = 2 * window - 1, 2 * new_window - 1
    return resize_grid(table, (old, old), (new, new), "bicubic")


def window_of(rows: int) -> int | None:
    """The side w of the window whose bias table has (2w - 1)^2 rows; None where there is none."""
    side = math.isqrt(max(rows, 0))
    return (side + 1) // 2 if side * side == rows and side % 2 else None


def square_side(count: int) -> int:
    """The side of a square of `count` places; 0 where it is none."""
    side = math.isqrt(max(count, 0))
    return side if side * side == count else 0


def resize_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """A patch projection [h, w, c, d] for images of other channels, which answers a gray image as before.

    Fewer channels share the sum; more repeat the old ones in turn, each weaker by how often it is there.
    """
    old = kernel.shape[2]
    if channels < old:
        return np.repeat(kernel.sum(axis=2, keepdims=True) / channels, channels, axis=2).astype(np.float32)
    source = np.arange(channels) % old
    copies = np.bincount(source)[source]
    return (kernel[:, :, source] / copies[:, None]).astype(np.float32)


def _weights(old: int, new: int, method: str) -> np.ndarray:
    """float64 [new, old], the share of every old place in every new one. Places beyond the border repeat it."""
    center = (np.arange(new) + 0.5) * old / new - 0.5
    if method == "bilinear":
        center = np.clip(center, 0, None)  # as PyTorch, which reads nothing before the first place
    left = np.floor(center).astype(int)
    weights = np.zeros((new, old))
    for offset in (-1, 0, 1, 2):
        place = left + offset
        share = _kernel(np.abs(center - place), method)
        np.add.at(weights, (np.arange(new), np.clip(place, 0, old - 1)), share)
    return weights


def _kernel(distance: np.ndarray, method: str) -> np.ndarray:
    """The interpolation kernel at distances from 0 to 2."""
    if method == "bilinear":
        return np.clip(1 - distance, 0, None)
    if method != "bicubic":
        raise ValueError(f"unknown interpolation {method!r}")
    x, a = distance, _CUBIC
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
