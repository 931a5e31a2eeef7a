"""The boxes that the region proposal network starts from: constants of the feature maps' sizes."""

import functools

import numpy as np

SCALE = 8.0  # side of an anchor over its level's stride
RATIOS = (0.5, 1.0, 2.0)  # height over width


@functools.lru_cache(maxsize=64)
def anchors(grid: tuple[int, int], stride: int, scale: float = SCALE, ratios: tuple[float, ...] = RATIOS) -> np.ndarray:
    """Anchors of one level, centered on the top left corner of each cell, not rounded.

    Args:
        grid: (rows, columns) of the level.
        stride: pixels per cell.
        scale: side of the square anchor in strides; all ratios have its area.
        ratios: height over width.

    Returns:
        float32 [rows * columns * ratios, 4], pixels; row-major, the ratios innermost.
    """
    root = np.sqrt(np.asarray(ratios, np.float64))
    side = stride * scale
    half = np.stack([side / root, side * root], axis=-1) / 2  # width, height
    base = np.concatenate([-half, half], axis=-1)
    y, x = np.meshgrid(np.arange(grid[0]), np.arange(grid[1]), indexing="ij")
    center = np.stack([x, y, x, y], axis=-1)[:, :, None] * float(stride)
    boxes = (center + base).reshape(-1, 4).astype(np.float32)
    boxes.setflags(write=False)
    return boxes


def anchor_centers(grid: tuple[int, int], stride: int, ratios: int = len(RATIOS)) -> np.ndarray:
    """The (y, x) centers in pixels of `anchors`: float32 [n, 2]."""
    y, x = np.meshgrid(np.arange(grid[0]), np.arange(grid[1]), indexing="ij")
    return np.repeat(np.stack([y, x], axis=-1).reshape(-1, 2), ratios, axis=0).astype(np.float32) * stride
