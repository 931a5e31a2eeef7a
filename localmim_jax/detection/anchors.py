"""Anchors: the boxes that the region proposal network refines. They depend only on the sizes of the feature maps."""

import functools

import numpy as np
from einops import rearrange, repeat
from jaxtyping import Float32

SCALE = 8.0  # side of a square anchor, in strides of its level
RATIOS = (0.5, 1.0, 2.0)  # height / width


@functools.lru_cache(maxsize=64)
def anchors(
    grid: tuple[int, int], stride: int, scale: float = SCALE, ratios: tuple[float, ...] = RATIOS
) -> Float32[np.ndarray, "n 4"]:
    """Anchors of one level, centered on the top left corner of each cell, not rounded.

    Args:
        grid: (rows, columns) of the level.
        stride: pixels per cell.
        scale: side of the square anchor, in strides; every ratio has the same area.
        ratios: height / width of each anchor.

    Returns:
        Boxes in pixels in row-major order, the ratios innermost: n = rows * columns * ratios.
    """
    root = np.sqrt(np.asarray(ratios, np.float64))
    side = stride * scale
    half = np.stack([side / root, side * root], axis=-1) / 2  # width, height
    base = np.concatenate([-half, half], axis=-1)
    y, x = np.meshgrid(np.arange(grid[0]), np.arange(grid[1]), indexing="ij")
    center = np.stack([x, y, x, y], axis=-1)[:, :, None] * float(stride)
    boxes = rearrange(center + base, "h w ratio box -> (h w ratio) box").astype(np.float32)
    boxes.setflags(write=False)
    return boxes


def anchor_centers(grid: tuple[int, int], stride: int, ratios: int = len(RATIOS)) -> Float32[np.ndarray, "n 2"]:
    """The (y, x) centers of `anchors`, in pixels."""
    cells = np.stack(np.meshgrid(np.arange(grid[0]), np.arange(grid[1]), indexing="ij"), axis=-1)
    return repeat(cells, "h w yx -> (h w ratio) yx", ratio=ratios).astype(np.float32) * stride
