"""Matching of boxes to ground truth, and sampling of the boxes that a loss uses.

Shapes are static. Every function takes one image; use `jax.vmap` for a batch.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, PRNGKeyArray

from localmim_jax.detection.boxes import iou

NEGATIVE, IGNORED = 0, -1


@dataclasses.dataclass(frozen=True)
class AssignConfig:
    """Thresholds on intersection over union, and the number of samples.

    Attributes:
        positive_iou: minimum IoU of a positive with its best ground-truth box.
        negative_iou: a box below this with every ground-truth box is a negative. Between the two it is ignored.
        min_positive_iou: a ground-truth box also claims its best boxes, ties included, from this IoU on.
        num_samples: number of boxes that a loss uses.
        positive_fraction: maximum fraction of positives among them.
    """

    positive_iou: float
    negative_iou: float
    min_positive_iou: float
    num_samples: int
    positive_fraction: float

    @property
    def max_positives(self) -> int:
        return int(self.num_samples * self.positive_fraction)


RPN = AssignConfig(positive_iou=0.7, negative_iou=0.3, min_positive_iou=0.3, num_samples=256, positive_fraction=0.5)
ROI = AssignConfig(positive_iou=0.5, negative_iou=0.5, min_positive_iou=0.5, num_samples=512, positive_fraction=0.25)


def assign(
    boxes: Float[Array, "n 4"], gt_boxes: Float[Array, "m 4"], gt_valid: Bool[Array, " m"], config: AssignConfig
) -> Int32[Array, " n"]:
    """The ground-truth box of each box.

    Args:
        boxes: boxes in pixels.
        gt_boxes: ground-truth boxes in pixels, at least one row.
        gt_valid: False for padding.
        config: thresholds.

    Returns:
        IGNORED, NEGATIVE, or 1 + the index of a ground-truth box. A box that several ground-truth boxes claim goes to
        the last of them, as in mmdetection.
    """
    count = len(gt_boxes)
    # Computed once: two fusions could round it differently, and it is compared with its own maximum below.
    overlap = jax.lax.optimization_barrier(jnp.where(gt_valid[None], iou(boxes, gt_boxes), -1.0))
    best = overlap.max(axis=1)
    result = jnp.where(best >= config.positive_iou, overlap.argmax(axis=1).astype(jnp.int32) + 1, IGNORED)
    result = jnp.where(best < config.negative_iou, NEGATIVE, result)
    best_of_gt = overlap.max(axis=0)
    tied = (overlap == best_of_gt[None]) & (best_of_gt >= config.min_positive_iou)[None]
    last = jnp.max(jnp.where(tied, jnp.arange(1, count + 1, dtype=jnp.int32)[None], 0), axis=1)
    return jnp.where(last > 0, last, result)


def sample(
    key: PRNGKeyArray, assigned: Int32[Array, " n"], usable: Bool[Array, " n"], config: AssignConfig
) -> tuple[Int32[Array, " s"], Bool[Array, " s"]]:
    """A random sample of boxes for a loss: positives up to their maximum, then negatives.

    Args:
        key: key of the draw.
        assigned: result of `assign`.
        usable: False for boxes that must not be drawn.
        config: number of samples.

    Returns:
        (index, valid) with s = min(num_samples, n), positives first. With too few boxes, the last entries are invalid.
    """
    size = min(config.num_samples, len(assigned))
    noise = jax.random.uniform(key, assigned.shape)
    positive, negative = (assigned > 0) & usable, (assigned == NEGATIVE) & usable
    order_of = jnp.where(positive, 2 + noise, jnp.where(negative, 1 + noise, 0.0))
    max_positives = min(config.max_positives, size)
    _, chosen = jax.lax.top_k(jnp.where(positive, order_of, 0.0), max_positives)
    num_positives = jnp.minimum(positive.sum(), max_positives)
    taken = jnp.zeros(assigned.shape, bool).at[chosen].set(jnp.arange(max_positives) < num_positives)
    # Positives beyond the maximum rank last and are invalid.
    rank = jnp.where(taken, 3 + noise, jnp.where(negative, 1 + noise, 0.0))
    value, index = jax.lax.top_k(rank, size)
    return index.astype(jnp.int32), value >= 1.0
