"""RoIAlign as two matrix products. Even its adaptive number of samples then has a static shape.

The value of a bin is the mean of bilinear samples on a grid of points inside it. The bilinear weights, the mean and the
rule at the border all factor into rows and columns, so a crop is (row weights) x (feature) x (column weights)^T. There
is no gather, and no scatter in the backward pass.
"""

import functools
import math

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, Float, Float32, Int32

_CHUNK = 128  # RoIs at a time: the product of a chunk with a whole stride-4 feature takes the memory


def axis_weights(
    start: Float32[Array, "*n"], end: Float32[Array, "*n"], length: int, bins: int, sampling_ratio: int
) -> Float32[Array, "*n {bins} {length}"]:
    """Weights of the cells along one axis in each of the `bins` equal parts of an interval.

    Args:
        start, end: the interval, in cells with half-pixel centers: cell i spans i to i + 1.
        length: number of cells along the axis.
        bins: number of parts.
        sampling_ratio: samples per bin. 0 is the adaptive rule: as many as the bin has cells, rounded up, but no more
            than the bins of an interval as long as the axis have.
    """
    size = (end - start) / bins
    if sampling_ratio:
        max_samples, count = sampling_ratio, jnp.full(start.shape, sampling_ratio, jnp.int32)
    else:
        max_samples = max(1, math.ceil(length / bins))
        count = jnp.clip(jnp.ceil(size).astype(jnp.int32), 1, max_samples)
    expand = (..., None, None)
    along = (1,) * start.ndim
    bin_start = start[expand] + size[expand] * jnp.arange(bins, dtype=jnp.float32).reshape(*along, bins, 1)
    cells = jnp.arange(length, dtype=jnp.float32).reshape(*along, 1, length)

    def add(index: jax.Array, total: jax.Array) -> jax.Array:
        at = bin_start + (index + 0.5) * (size / count)[expand] - 0.5
        # A sample up to one cell outside takes the value at the border; farther out it is zero.
        inside = (at >= -1) & (at <= length) & (index < count)[expand]
        at = jnp.clip(at, 0.0, length - 1.0)
        return total + jnp.where(inside, jnp.maximum(1 - jnp.abs(at - cells), 0.0), 0.0)

    total = jax.lax.fori_loop(0, max_samples, add, jnp.zeros((*start.shape, bins, length), jnp.float32))
    return jax.lax.stop_gradient(total / count[expand])


def roi_align(
    features: Float[Array, "b h w c"],
    boxes: Float[Array, "b n 4"],
    scale: float,
    bins: int,
    sampling_ratio: int = 0,
    use: Bool[Array, "b n"] | None = None,
) -> Float[Array, "b n {bins} {bins} c"]:
    """Crops of a feature map with half-pixel centers ("aligned").

    Args:
        features: the feature map.
        boxes: boxes in pixels of the image. They get no gradient.
        scale: cells per pixel.
        bins: bins along a side of a crop.
        sampling_ratio: samples along a side of a bin; 0 for the adaptive rule, see `axis_weights`. That rule is exact
            for boxes inside the image.
        use: False for boxes whose crop is zero. None uses all.

    Returns:
        Crops in the dtype of the features; products accumulate in float32.
    """
    _, h, w, _ = features.shape
    n = boxes.shape[1]

    def crop(boxes: jax.Array, use: jax.Array) -> jax.Array:
        cells = boxes.astype(jnp.float32) * scale
        rows = axis_weights(cells[..., 1], cells[..., 3], h, bins, sampling_ratio)
        columns = axis_weights(cells[..., 0], cells[..., 2], w, bins, sampling_ratio)
        rows = jnp.where(use[..., None, None], rows, 0.0).astype(features.dtype)
        strips = jnp.einsum("bnih,bhwc->bniwc", rows, features)
        return jnp.einsum("bnjw,bniwc->bnijc", columns.astype(features.dtype), strips)

    use = jnp.ones(boxes.shape[:2], bool) if use is None else use
    if n <= _CHUNK:
        return crop(boxes, use)

    def chunked(array: jax.Array) -> jax.Array:
        array = jnp.pad(array, ((0, 0), (0, -n % _CHUNK)) + ((0, 0),) * (array.ndim - 2))
        return rearrange(array, "b (chunk n) ... -> chunk b n ...", n=_CHUNK)

    crops = jax.lax.map(lambda chunk: crop(*chunk), (chunked(boxes), chunked(use)))
    return rearrange(crops, "chunk b n ... -> b (chunk n) ...")[:, :n]


def roi_level(boxes: Float[Array, "*n 4"], num_levels: int = 4, finest: float = 56.0) -> Int32[Array, "*n"]:
    """The pyramid level of a box: floor(log2(sqrt(area) / 56)), clipped to 0 to num_levels - 1."""
    boxes = boxes.astype(jnp.float32)
    side = jnp.sqrt(jnp.maximum((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]), 0.0))
    level = jnp.floor(jnp.log2(side / finest + 1e-6))
    return jnp.clip(level, 0, num_levels - 1).astype(jnp.int32)


@jax.named_scope("roi_align")
def pyramid_roi_align(
    features: tuple[Float[Array, "b _h _w c"], ...],
    boxes: Float[Array, "b n 4"],
    strides: tuple[int, ...],
    bins: int,
    sampling_ratio: int = 0,
) -> Float[Array, "b n {bins} {bins} c"]:
    """`roi_align` of each box on its level, see `roi_level`."""
    level = roi_level(boxes, len(features))
    of_levels = [
        roi_align(feature, boxes, 1 / stride, bins, sampling_ratio, level == i)
        for i, (feature, stride) in enumerate(zip(features, strides, strict=True))
    ]
    return functools.reduce(jnp.add, of_levels)
