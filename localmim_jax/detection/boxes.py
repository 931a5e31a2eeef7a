"""Axis-aligned boxes: overlap, and the deltas that move one box onto another.

A box is (left, top, right, bottom) in pixels. These are edges, not pixel indices, so the width is right - left. All
functions compute in float32 whatever the model's dtype: at 1333 pixels, bfloat16 would round an edge by four of them.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

RPN_STDS = (1.0, 1.0, 1.0, 1.0)
ROI_STDS = (0.1, 0.1, 0.2, 0.2)
MAX_LOG_RATIO = 4.135166556742356  # ln(1000 / 16): decoding scales a side by at most 62.5, up or down
_EPSILON = 1e-6


def area(boxes: Float[Array, "*b 4"]) -> Float32[Array, "*b"]:
    """The area in square pixels; 0 for a box whose edges are swapped."""
    boxes = boxes.astype(jnp.float32)
    return jnp.maximum(boxes[..., 2] - boxes[..., 0], 0.0) * jnp.maximum(boxes[..., 3] - boxes[..., 1], 0.0)


def iou(boxes: Float[Array, "*b n 4"], others: Float[Array, "*b m 4"]) -> Float32[Array, "*b n m"]:
    """Intersection over union of every pair, from 0 to 1."""
    boxes, others = boxes.astype(jnp.float32)[..., :, None, :], others.astype(jnp.float32)[..., None, :, :]
    top_left = jnp.maximum(boxes[..., :2], others[..., :2])
    bottom_right = jnp.minimum(boxes[..., 2:], others[..., 2:])
    side = jnp.maximum(bottom_right - top_left, 0.0)
    intersection = side[..., 0] * side[..., 1]
    union = area(boxes) + area(others) - intersection
    return intersection / jnp.maximum(union, _EPSILON)


def encode(
    boxes: Float[Array, "*#b 4"], targets: Float[Array, "*#b 4"], stds: tuple[float, ...]
) -> Float32[Array, "*#b 4"]:
    """The deltas that move `boxes` onto `targets`.

    Args:
        boxes, targets: boxes in pixels. Sides are at least a millionth of a pixel, so that padding gives finite deltas.
        stds: scale of each of the four deltas.

    Returns:
        (shift of the center in sides of the box, log of the ratio of the sides) / stds.
    """
    center, side = _center_and_side(boxes.astype(jnp.float32))
    target_center, target_side = _center_and_side(targets.astype(jnp.float32))
    side, target_side = jnp.maximum(side, _EPSILON), jnp.maximum(target_side, _EPSILON)
    deltas = jnp.concatenate([(target_center - center) / side, jnp.log(target_side / side)], axis=-1)
    return deltas / jnp.asarray(stds, jnp.float32).reshape((1,) * (deltas.ndim - 1) + (4,))


def decode(
    boxes: Float[Array, "*#b 4"], deltas: Float[Array, "*#b 4"], stds: tuple[float, ...]
) -> Float32[Array, "*#b 4"]:
    """The inverse of `encode`: boxes in pixels moved by deltas. The ratio of the sides is limited to 62.5."""
    center, side = _center_and_side(boxes.astype(jnp.float32))
    deltas = deltas.astype(jnp.float32) * jnp.asarray(stds, jnp.float32).reshape((1,) * (deltas.ndim - 1) + (4,))
    center = center + deltas[..., :2] * side
    side = side * jnp.exp(jnp.clip(deltas[..., 2:], -MAX_LOG_RATIO, MAX_LOG_RATIO))
    return jnp.concatenate([center - side / 2, center + side / 2], axis=-1)


def clip(boxes: Float[Array, "*b 4"], size: Float[Array, "*s 2"]) -> Float32[Array, "*b 4"]:
    """Boxes clipped to their images. `size` is (h, w); its leading axes are the first axes of the boxes."""
    h, w = size[..., 0], size[..., 1]
    limit = jnp.stack([w, h, w, h], axis=-1).astype(jnp.float32)
    limit = limit.reshape(limit.shape[:-1] + (1,) * (boxes.ndim - limit.ndim) + (4,))
    return jnp.clip(boxes.astype(jnp.float32), 0.0, limit)


def _center_and_side(
    boxes: Float32[Array, "*b 4"],
) -> tuple[Float32[Array, "*b 2"], Float32[Array, "*b 2"]]:
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
