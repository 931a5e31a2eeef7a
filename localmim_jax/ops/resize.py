"""Bilinear resizing and adaptive pooling of maps, as matrices over rows and columns.

A matrix [out, in] holds the weight of every input in every output, so a resize is two products. Sizes that are arrays
rather than shapes may differ between the images of a batch, which share one shape and are filled from the top left.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64

EXACT = jax.lax.Precision.HIGHEST


def bilinear_weights(
    out: int,
    size: int,
    out_length: jax.Array | float,
    length: jax.Array | float,
    offset: jax.Array | float = 0.0,
    mirrored: bool = False,
) -> Float32[Array, "{out} {size}"]:
    """The weights of bilinear interpolation without aligned corners (torch's and OpenMMLab's), borders repeated.

    Args:
        out, size: rows and columns of the matrix.
        out_length: how many outputs the input's `length` places are spread over; outputs beyond it are zero.
        length: how many of the `size` inputs there are.
        offset: place of the first output; outputs before it are zero.
        mirrored: outputs in reverse order, the last first.
    """
    place = jnp.arange(out, dtype=jnp.float32) - offset
    inside = (place >= 0) & (place < out_length)
    place = out_length - 1 - place if mirrored else place
    center = jnp.clip((place + 0.5) * (length / out_length) - 0.5, 0.0, length - 1.0)
    distance = jnp.abs(center[:, None] - jnp.arange(size, dtype=jnp.float32)[None])
    return jnp.where(inside[:, None], jnp.maximum(1.0 - distance, 0.0), 0.0)


def resize_bilinear(x: Float[Array, "b h w c"], size: tuple[int, int]) -> Float[Array, "b {size[0]} {size[1]} c"]:
    """Resizes to `size` (rows, columns) in x's dtype, without aligned corners and without antialiasing."""
    if x.shape[1:3] == size:
        return x
    rows, columns = (bilinear_weights(new, old, new, old) for new, old in zip(size, x.shape[1:3], strict=True))
    return apply_weights(x, rows.astype(x.dtype), columns.astype(x.dtype))


def apply_weights(
    x: Float[Array, "b h w c"], rows: Float[Array, "y h"], columns: Float[Array, "x w"]
) -> Float[Array, "b y x c"]:
    """Resizes by a matrix for the rows and one for the columns."""
    x = jnp.einsum("yh,bhwc->bywc", rows, x, precision=EXACT)
    return jnp.einsum("xw,bywc->byxc", columns, x, precision=EXACT)


def adaptive_average_pool(x: Float[Array, "b h w c"], size: int) -> Float[Array, "b {size} {size} c"]:
    """Means over size x size bins, from floor(i h / size) to ceil((i + 1) h / size).

    Bins overlap where size does not divide h, also where it exceeds h.
    """
    rows, columns = (jnp.asarray(_bins(size, side), x.dtype) for side in x.shape[1:3])
    return apply_weights(x, rows, columns)


def _bins(size: int, side: int) -> Float64[np.ndarray, "{size} {side}"]:
    """One over a bin's length where a place belongs to the bin."""
    i, place = np.arange(size)[:, None], np.arange(side)[None]
    member = (place >= i * side // size) & (place < -(-(i + 1) * side // size))
    return member / member.sum(axis=1, keepdims=True)
