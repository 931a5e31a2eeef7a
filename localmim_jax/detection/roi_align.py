"""RoIAlign as two matrix products, so that even its adaptive number of samples has a static shape.

A bin's value is the mean of bilinear samples on a grid of points inside it. Bilinear weights, the mean and the rule at
the border are all products of a row's and a column's part, so a RoI's crop is (row weights) x (feature) x (column
weights)^T. No gather, and no scatter in the backward pass.
"""

import functools
import math

import jax
import jax.numpy as jnp

_CHUNK = 128  # RoIs at a time: a chunk's product with a whole stride-4 feature is what takes memory


def axis_weights(start: jax.Array, end: jax.Array, length: int, bins: int, sampling: int) -> jax.Array:
    """Weights of `length` cells in each of `bins` equal parts of a stretch, one axis of RoIAlign.

    Args:
        start, end: float32 [...], of the stretch, in cells with half-pixel centers: cell i lies from i to i + 1.
        length: cells along the axis.
        bins: parts.
        sampling: samples in a bin; 0 for the adaptive rule: as many as the bin has cells, rounded up, but no more than
            a stretch as long as the axis would get.

    Returns:
        float32 [..., bins, length].
    """
    size = (end - start) / bins
    if sampling:
        most, count = sampling, jnp.full(start.shape, sampling, jnp.int32)
    else:
        most = max(1, math.ceil(length / bins))
        count = jnp.clip(jnp.ceil(size).astype(jnp.int32), 1, most)
    expand = (..., None, None)
    along = (1,) * start.ndim
    bin_start = start[expand] + size[expand] * jnp.arange(bins, dtype=jnp.float32).reshape(*along, bins, 1)
    cells = jnp.arange(length, dtype=jnp.float32).reshape(*along, 1, length)

    def add(index: jax.Array, total: jax.Array) -> jax.Array:
        at = bin_start + (index + 0.5) * (size / count)[expand] - 0.5
        # A sample up to one cell outside takes the border's value; further out there is nothing.
        inside = (at >= -1) & (at <= length) & (index < count)[expand]
        at = jnp.clip(at, 0.0, length - 1.0)
        return total + jnp.where(inside, jnp.maximum(1 - jnp.abs(at - cells), 0.0), 0.0)

    total = jax.lax.fori_loop(0, most, add, jnp.zeros((*start.shape, bins, length), jnp.float32))
    return jax.lax.stop_gradient(total / count[expand])


def roi_align(
    features: jax.Array, boxes: jax.Array, scale: float, bins: int, sampling: int = 0, use: jax.Array | None = None
) -> jax.Array:
    """Crops of a feature map, `bins` x `bins` each; half-pixel centers ("aligned").

    Args:
        features: [b, h, w, c].
        boxes: [b, n, 4], pixels of the image; no gradient flows to them.
        scale: cells per pixel.
        bins: along a side of a crop.
        sampling: samples along a side of a bin; 0 for the adaptive rule, see `axis_weights`, which is exact
            for boxes that lie in the image.
        use: bool [b, n]; the crops of the others are zero. None: all.

    Returns:
        [b, n, bins, bins, c] in the dtype of the features; products add up in float32.
    """
    _, h, w, _ = features.shape
    n = boxes.shape[1]

    def crop(boxes: jax.Array, use: jax.Array) -> jax.Array:
        cells = boxes.astype(jnp.float32) * scale
        rows = axis_weights(cells[..., 1], cells[..., 3], h, bins, sampling)
        columns = axis_weights(cells[..., 0], cells[..., 2], w, bins, sampling)
        rows = jnp.where(use[..., None, None], rows, 0.0).astype(features.dtype)
        cut = jnp.einsum("bnih,bhwc->bniwc", rows, features)
        return jnp.einsum("bnjw,bniwc->bnijc", columns.astype(features.dtype), cut)

    use = jnp.ones(boxes.shape[:2], bool) if use is None else use
    if n <= _CHUNK:
        return crop(boxes, use)
    chunks = -(-n // _CHUNK)
    missing = chunks * _CHUNK - n

    def cut(array: jax.Array) -> jax.Array:
        array = jnp.pad(array, ((0, 0), (0, missing)) + ((0, 0),) * (array.ndim - 2))
        return array.reshape(array.shape[0], chunks, _CHUNK, *array.shape[2:]).swapaxes(0, 1)

    crops = jax.lax.map(lambda chunk: crop(*chunk), (cut(boxes), cut(use)))
    crops = crops.swapaxes(0, 1)
    return crops.reshape(crops.shape[0], -1, *crops.shape[3:])[:, :n]


def roi_level(boxes: jax.Array, num_levels: int = 4, finest: float = 56.0) -> jax.Array:
    """The pyramid level of a box: floor(log2(sqrt(area) / 56)), at least 0 and below `num_levels`; int32 [...]."""
    boxes = boxes.astype(jnp.float32)
    side = jnp.sqrt(jnp.maximum((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]), 0.0))
    level = jnp.floor(jnp.log2(side / finest + 1e-6))
    return jnp.clip(level, 0, num_levels - 1).astype(jnp.int32)


def pyramid_roi_align(
    features: tuple[jax.Array, ...], boxes: jax.Array, strides: tuple[int, ...], bins: int, sampling: int = 0
) -> jax.Array:
    """`roi_align` of each box in the level that `roi_level` gives it: [b, n, bins, bins, c]."""
    level = roi_level(boxes, len(features))
    of_levels = [
        roi_align(feature, boxes, 1 / stride, bins, sampling, level == i)
        for i, (feature, stride) in enumerate(zip(features, strides, strict=True))
    ]
    return functools.reduce(jnp.add, of_levels)
