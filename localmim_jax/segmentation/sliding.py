"""Class scores of whole images, in one piece or from overlapping windows, at any size.

A score function maps images [b, h, w, c] to class scores [b, h', w', k] on a coarser grid.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float, Float32, Int64, Integer, UInt8

from localmim_jax.ops.resize import apply_weights, bilinear_weights, resize_bilinear

Scores = Callable[[jax.Array], jax.Array]
_MAX_SCORES = 2**26  # number of scores at their final size that exist at a time


def whole_image(scores: Scores, images: Float[Array, "b h w c"]) -> Float32[Array, "b h w k"]:
    """Scores of whole images at their own size."""
    _, h, w, _ = images.shape
    return resize_bilinear(scores(images).astype(jnp.float32), (h, w))


@jax.named_scope("sliding_window")
def sliding_window(
    scores: Scores, images: Float[Array, "b h w c"], window: int, stride: int
) -> Float32[Array, "b h w k"]:
    """The mean score over all windows that contain a pixel.

    A window starts every `stride` pixels. The last window of a row or column is moved back to end with the image, as in
    OpenMMLab. An image smaller than the window is padded with zeros at the bottom and right.

    Args:
        scores: called with [b, window, window, c].
        images: normalized images.
        window, stride: sizes in pixels; the stride is at most the window.
    """
    b, h, w, _ = images.shape
    images = jnp.pad(images, ((0, 0), (0, max(0, window - h)), (0, max(0, window - w)), (0, 0)))
    height, width = images.shape[1:3]
    rows, columns = (starts(side, window, stride) for side in (height, width))
    corners = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)

    def of_window(corner: jax.Array) -> jax.Array:
        crop = jax.lax.dynamic_slice(images, (0, *corner, 0), (b, window, window, images.shape[-1]))
        return whole_image(scores, crop)

    def add(total: jax.Array, corner: jax.Array) -> tuple[jax.Array, None]:
        place = (0, *corner, 0)
        new = of_window(corner)
        old = jax.lax.dynamic_slice(total, place, new.shape)
        return jax.lax.dynamic_update_slice(total, old + new, place), None

    classes = jax.eval_shape(of_window, jax.ShapeDtypeStruct((2,), jnp.int32)).shape[-1]
    empty = jnp.zeros((b, height, width, classes), jnp.float32)
    total, _ = jax.lax.scan(add, empty, jnp.asarray(corners, jnp.int32))
    times = np.zeros((height, width, 1), np.float32)
    for top, left in corners:
        times[top : top + window, left : left + window] += 1
    return (total / times[None])[:, :h, :w]


def starts(side: int, window: int, stride: int) -> Int64[np.ndarray, " n"]:
    """The first pixel of each window along a side of at least `window` pixels, increasing."""
    count = -(-(side - window) // stride) + 1
    return np.minimum(np.arange(count) * stride, side - window)


def average(of_scale: Scores, scales: Sequence[Float[Array, "b _h _w c"]], flip: bool) -> Float[Array, "b h w k"]:
    """The mean score over several scales of one image, and over its mirror image, at the size of the first scale.

    Args:
        of_scale: images -> scores of the same size.
        scales: the image at each scale.
        flip: whether to include mirror images.
    """
    _, h, w, _ = scales[0].shape
    found = []
    for images in scales:
        found.append(resize_bilinear(of_scale(images), (h, w)))
        if flip:
            found.append(resize_bilinear(of_scale(images[:, :, ::-1])[:, :, ::-1], (h, w)))
    return sum(found[1:], start=found[0]) / len(found)


@jax.named_scope("labels")
def labels_at(
    scores: Float[Array, "b h w k"], sizes: Integer[Array, "b 2"], canvas: tuple[int, int]
) -> UInt8[Array, "b {canvas[0]} {canvas[1]}"]:
    """The class with the highest score at every pixel, bilinearly interpolated to a size of each image's own.

    Args:
        scores: class scores of at most 256 classes.
        sizes: (h, w) of each image.
        canvas: (h, w) that holds the largest of them.

    Returns:
        Labels of each image in the top left corner. Those outside the image are undefined.
    """
    b, h, w, classes = scores.shape
    height, width = canvas
    strip = max(1, min(height, _MAX_SCORES // (b * width * classes)))
    strips = -(-height // strip)
    lengths = sizes.astype(jnp.float32)

    def matrices(out: int, size: int, axis: int) -> jax.Array:
        return jax.vmap(lambda length: bilinear_weights(out, size, length, size))(lengths[:, axis])

    rows = rearrange(matrices(strips * strip, h, 0), "b (strips y) h -> strips b y h", y=strip)
    columns = matrices(width, w, 1)

    def of_strip(rows: jax.Array) -> jax.Array:
        resized = jax.vmap(lambda x, r, c: apply_weights(x[None], r, c)[0])(scores, rows, columns)
        return jnp.argmax(resized, axis=-1).astype(jnp.uint8)

    return rearrange(jax.lax.map(of_strip, rows), "strips b y x -> b (strips y) x")[:, :height]
