"""Where a token is: sine-cosine embeddings for ViT and for every decoder, relative positions for Swin."""

import functools

import numpy as np

from localmim_jax.errors import ConfigError


@functools.lru_cache(maxsize=32)
def sincos_2d(grid: tuple[int, int], width: int) -> np.ndarray:
    """Fixed position embeddings of a grid, row-major: float32 [rows * columns, width], values in [-1, 1].

    Channels are [sin x, cos x, sin y, cos y], x the column and y the row; frequency i of width / 4 is
    10000^(-i / (width / 4)) (docs/method.md).

    Raises:
        ConfigError: width is not a multiple of 4.
    """
    if width % 4:
        raise ConfigError(f"width {width} cannot carry 2-D sine-cosine positions: choose a multiple of 4")
    rows, columns = grid
    frequency = 1.0 / 10000 ** (np.arange(width // 4, dtype=np.float64) / (width // 4))
    y, x = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    angles_x = x.reshape(-1, 1) * frequency
    angles_y = y.reshape(-1, 1) * frequency
    table = np.concatenate([np.sin(angles_x), np.cos(angles_x), np.sin(angles_y), np.cos(angles_y)], axis=1)
    table = table.astype(np.float32)
    table.setflags(write=False)
    return table


@functools.lru_cache(maxsize=32)
def relative_position_index(window: int) -> np.ndarray:
    """The row of a relative position bias table for every pair of a window's places: int32 [window^2, window^2].

    Row (dy + window - 1) * (2 * window - 1) + dx + window - 1, where (dy, dx) is the query's place minus the key's and
    places are row-major: the order of every published Swin.
    """
    y, x = np.divmod(np.arange(window**2), window)
    dy = y[:, None] - y[None, :] + window - 1
    dx = x[:, None] - x[None, :] + window - 1
    index = (dy * (2 * window - 1) + dx).astype(np.int32)
    index.setflags(write=False)
    return index
