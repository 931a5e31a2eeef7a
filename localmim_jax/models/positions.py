"""Where a token is: sine-cosine embeddings for ViT and every decoder, relative positions for Swin and dense ViTs."""

import functools

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float, Float32, Int32

from localmim_jax.errors import ConfigError


@functools.lru_cache(maxsize=32)
def sincos_2d(grid: tuple[int, int], width: int) -> Float32[np.ndarray, "{grid[0]*grid[1]} {width}"]:
    """Fixed position embeddings of a grid of (rows, columns), row-major, values in [-1, 1].

    Channels are [sin x, cos x, sin y, cos y], x the column and y the row; frequency i of width / 4 is
    10000^(-i / (width / 4)) (docs/method.md).

    Raises:
        ConfigError: width is not a multiple of 4.
    """
    if width % 4:
        raise ConfigError(f"width {width} is not a multiple of 4, which 2-D sine-cosine positions need")
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
def relative_position_index(window: int) -> Int32[np.ndarray, "{window**2} {window**2}"]:
    """The row of a relative position bias table for every pair of a window's places, query by key.

    Row (dy + window - 1) * (2 * window - 1) + dx + window - 1, where (dy, dx) is the query's place minus the key's and
    places are row-major: the order of every published Swin.
    """
    y, x = np.divmod(np.arange(window**2), window)
    dy = y[:, None] - y[None, :] + window - 1
    dx = x[:, None] - x[None, :] + window - 1
    index = (dy * (2 * window - 1) + dx).astype(np.int32)
    index.setflags(write=False)
    return index


def relative_rows(grid: tuple[int, int]) -> int:
    """Rows of the relative position bias table of a grid with a class token in front of it."""
    return (2 * grid[0] - 1) * (2 * grid[1] - 1) + 3


def grid_bias(table: Float[Array, "r heads"], grid: tuple[int, int]) -> Float32[Array, "heads q k"]:
    """A relative position bias for every pair of a whole grid's tokens, class token first.

    Args:
        table: `relative_rows(grid)` rows. Row (dy + rows - 1) * (2 * columns - 1) + dx + columns - 1 is for patches,
            (dy, dx) being the query's place minus the key's; the last three rows are class to patch, patch to class
            and class to class, query first.
        grid: (rows, columns) of patches.

    Returns:
        The bias of every query and key, 1 + rows * columns each, to add to the logits.
    """
    rows, columns = grid
    table = table.astype(jnp.float32).T
    heads = table.shape[0]
    pairs = rearrange(table[:, :-3], "h (dy dx) -> h dy dx", dy=2 * rows - 1)
    pairs = _differences(_differences(pairs, rows, 1), columns, 3)
    pairs = rearrange(pairs, "h y_q y_k x_q x_k -> h (y_q x_q) (y_k x_k)")
    to_patch, from_patch, own = (table[:, i, None, None] for i in (-3, -2, -1))
    top = jnp.concatenate([own, jnp.broadcast_to(to_patch, (heads, 1, rows * columns))], axis=2)
    left = jnp.broadcast_to(from_patch, (heads, rows * columns, 1))
    return jnp.concatenate([top, jnp.concatenate([left, pairs], axis=2)], axis=1)


def _differences(x: Float[Array, "..."], size: int, axis: int) -> Float[Array, "..."]:
    """Replaces an axis of 2 size - 1 differences by two axes (i, j) of `size`: out[i, j] = x[i - j + size - 1].

    By repeating and reshaping rather than a gather, whose gradient would be a slow scatter of colliding adds.
    """
    x = jnp.moveaxis(jnp.flip(x, axis), axis, -1)
    lead = x.shape[:-1]
    x = jnp.roll(jnp.pad(x, [(0, 0)] * len(lead) + [(0, 1)]), 1 - size, axis=-1)  # of period 2 size, difference 0 first
    x = jnp.broadcast_to(x[..., None, :], (*lead, size, 2 * size)).reshape(*lead, -1)
    x = x[..., : size * (2 * size - 1)].reshape(*lead, size, 2 * size - 1)[..., :size]  # each row starts one earlier
    return jnp.moveaxis(x, (-2, -1), (axis, axis + 1))
