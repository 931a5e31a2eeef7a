"""Class scores of whole images: from overlapping windows or in one piece, at the image's size or any other.

A score function maps images [b, h, w, c] to scores on a coarser grid [b, h', w', k].
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from localmim_jax.ops.resize import apply_weights, bilinear_weights, resize_bilinear

Scores = Callable[[jax.Array], jax.Array]
_AT_A_TIME = 2**26  # scores that exist at their final size


def whole_image(scores: Scores, images: jax.Array) -> jax.Array:
    """Scores of whole images at their own size, [b, h, w, c] -> float32 [b, h, w, k]."""
    _, h, w, _ = images.shape
    return resize_bilinear(scores(images).astype(jnp.float32), (h, w))


def sliding_window(scores: Scores, images: jax.Array, window: int, stride: int) -> jax.Array:
    """The mean score over all windows that hold a pixel.

    Windows start every `stride` pixels; the last one of a row or column is moved back to end with the image
    (OpenMMLab's rule). An image smaller than the window is padded with zeros at the bottom and right.

    Args:
        scores: called with [b, window, window, c].
        images: [b, h, w, c], normalized.
        window, stride: in pixels, stride at most window.

    Returns:
        float32 [b, h, w, k].
    """
    b, h, w, _ = images.shape
    images = jnp.pad(images, ((0, 0), (0, max(0, window - h)), (0, max(0, window - w)), (0, 0)))
    height, width = images.shape[1:3]
    rows, columns = (starts(side, window, stride) for side in (height, width))
    corners = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)

    def of_window(corner: jax.Array) -> jax.Array:
        piece = jax.lax.dynamic_slice(images, (0, *corner, 0), (b, window, window, images.shape[-1]))
        return whole_image(scores, piece)

    def add(total: jax.Array, corner: jax.Array) -> tuple[jax.Array, None]:
        place = (0, *corner, 0)
        found = of_window(corner)
        old = jax.lax.dynamic_slice(total, place, found.shape)
        return jax.lax.dynamic_update_slice(total, old + found, place), None

    classes = jax.eval_shape(of_window, jax.ShapeDtypeStruct((2,), jnp.int32)).shape[-1]
    empty = jnp.zeros((b, height, width, classes), jnp.float32)
    total, _ = jax.lax.scan(add, empty, jnp.asarray(corners, jnp.int32))
    times = np.zeros((height, width, 1), np.float32)
    for top, left in corners:
        times[top : top + window, left : left + window] += 1
    return (total / times[None])[:, :h, :w]


def starts(side: int, window: int, stride: int) -> np.ndarray:
    """Where windows begin along a side of at least `window` pixels: int64, increasing."""
    count = -(-(side - window) // stride) + 1
    return np.minimum(np.arange(count) * stride, side - window)


def average(of_scale: Callable[[jax.Array], jax.Array], scales: Sequence[jax.Array], flip: bool) -> jax.Array:
    """The mean of the scores of one image at several scales, and of its mirror image, at the first scale's size.

    Args:
        of_scale: images [b, h, w, c] -> scores [b, h, w, k].
        scales: images, alike but for their size.
        flip: whether to look at mirror images too.
    """
    _, h, w, _ = scales[0].shape
    found = []
    for images in scales:
        found.append(resize_bilinear(of_scale(images), (h, w)))
        if flip:
            found.append(resize_bilinear(of_scale(images[:, :, ::-1])[:, :, ::-1], (h, w)))
    return sum(found[1:], start=found[0]) / len(found)


def labels_at(scores: jax.Array, sizes: jax.Array, canvas: tuple[int, int]) -> jax.Array:
    """The class with the highest score at every pixel of images of other sizes, by bilinear interpolation.

    Args:
        scores: [b, h, w, k], k at most 256.
        sizes: int32 [b, 2], (h, w) wanted for each image.
        canvas: (H, W), at least the largest of them.

    Returns:
        uint8 [b, H, W], each image in the top left; what lies beyond it means nothing.
    """
    b, h, w, classes = scores.shape
    height, width = canvas
    strip = max(1, min(height, _AT_A_TIME // (b * width * classes)))
    strips = -(-height // strip)
    lengths = sizes.astype(jnp.float32)

    def matrices(out: int, size: int, axis: int) -> jax.Array:
        return jax.vmap(lambda length: bilinear_weights(out, size, length, size))(lengths[:, axis])

    rows = matrices(strips * strip, h, 0).reshape(b, strips, strip, h).swapaxes(0, 1)
    columns = matrices(width, w, 1)

    def of_strip(rows: jax.Array) -> jax.Array:
        resized = jax.vmap(lambda x, r, c: apply_weights(x[None], r, c)[0])(scores, rows, columns)
        return jnp.argmax(resized, axis=-1).astype(jnp.uint8)

    found = jax.lax.map(of_strip, rows)
    return found.swapaxes(0, 1).reshape(b, strips * strip, width)[:, :height]
