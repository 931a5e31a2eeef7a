"""Axis-aligned boxes: overlap, and the offsets by which a detector moves one box onto another.

A box is (left, top, right, bottom) in pixels, edges and not pixel indices, so its width is right - left. Everything is
float32 whatever the model computes in: at 1333 pixels bfloat16 would round an edge by four of them.
"""

import jax
import jax.numpy as jnp

RPN_STDS = (1.0, 1.0, 1.0, 1.0)
ROI_STDS = (0.1, 0.1, 0.2, 0.2)
MAX_LOG_RATIO = 4.135166556742356  # ln(1000 / 16): a decoded side is at most 62.5 times the box's, or as much smaller
_LEAST = 1e-6


def area(boxes: jax.Array) -> jax.Array:
    """[..., 4] -> float32 [...]; 0 where a box is inside out."""
    boxes = boxes.astype(jnp.float32)
    return jnp.maximum(boxes[..., 2] - boxes[..., 0], 0.0) * jnp.maximum(boxes[..., 3] - boxes[..., 1], 0.0)


def iou(boxes: jax.Array, others: jax.Array) -> jax.Array:
    """Intersection over union of every pair: [..., n, 4], [..., m, 4] -> float32 [..., n, m] in 0..1."""
    boxes, others = boxes.astype(jnp.float32)[..., :, None, :], others.astype(jnp.float32)[..., None, :, :]
    top_left = jnp.maximum(boxes[..., :2], others[..., :2])
    bottom_right = jnp.minimum(boxes[..., 2:], others[..., 2:])
    side = jnp.maximum(bottom_right - top_left, 0.0)
    intersection = side[..., 0] * side[..., 1]
    union = area(boxes) + area(others) - intersection
    return intersection / jnp.maximum(union, _LEAST)


def encode(boxes: jax.Array, targets: jax.Array, stds: tuple[float, ...]) -> jax.Array:
    """What moves `boxes` onto `targets`: ((dx, dy) in sides of the box, log of the sides' ratios) / stds.

    Args:
        boxes, targets: [..., 4], pixels. A side below a millionth of a pixel counts as that, so that an empty slot
            gives a finite number.
        stds: of the four numbers.

    Returns:
        float32 [..., 4].
    """
    center, side = _center_and_side(boxes.astype(jnp.float32))
    target_center, target_side = _center_and_side(targets.astype(jnp.float32))
    side, target_side = jnp.maximum(side, _LEAST), jnp.maximum(target_side, _LEAST)
    deltas = jnp.concatenate([(target_center - center) / side, jnp.log(target_side / side)], axis=-1)
    return deltas / jnp.asarray(stds, jnp.float32).reshape((1,) * (deltas.ndim - 1) + (4,))


def decode(boxes: jax.Array, deltas: jax.Array, stds: tuple[float, ...]) -> jax.Array:
    """The inverse of `encode`: boxes [..., 4] moved by deltas [..., 4]; float32 pixels. Ratios are clipped."""
    center, side = _center_and_side(boxes.astype(jnp.float32))
    deltas = deltas.astype(jnp.float32) * jnp.asarray(stds, jnp.float32).reshape((1,) * (deltas.ndim - 1) + (4,))
    center = center + deltas[..., :2] * side
    side = side * jnp.exp(jnp.clip(deltas[..., 2:], -MAX_LOG_RATIO, MAX_LOG_RATIO))
    return jnp.concatenate([center - side / 2, center + side / 2], axis=-1)


def clip(boxes: jax.Array, size: jax.Array) -> jax.Array:
    """Boxes [..., 4] cut to images of `size` (h, w), [..., 2] or [2], broadcast over the boxes' leading axes."""
    h, w = size[..., 0], size[..., 1]
    limit = jnp.stack([w, h, w, h], axis=-1).astype(jnp.float32)
    limit = limit.reshape(limit.shape[:-1] + (1,) * (boxes.ndim - limit.ndim) + (4,))
    return jnp.clip(boxes.astype(jnp.float32), 0.0, limit)


def _center_and_side(boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
