"""Which ground truth a box is to find, and which boxes a loss looks at. Static shapes; one image at a time (vmap)."""

import dataclasses

import jax
import jax.numpy as jnp

from localmim_jax.detection.boxes import iou

NEGATIVE, IGNORED = 0, -1


@dataclasses.dataclass(frozen=True)
class AssignConfig:
    """Thresholds of intersection over union, and how many boxes are sampled.

    Attributes:
        positive: a box with at least this is a positive of its best ground truth.
        negative: a box below this with all of them is a negative; between the two it is ignored.
        least: a ground truth whose best box has at least this gets that box, and every one tied with it.
        samples: boxes that a loss looks at.
        positive_share: at most this share of them is positive.
    """

    positive: float
    negative: float
    least: float
    samples: int
    positive_share: float

    @property
    def max_positives(self) -> int:
        return int(self.samples * self.positive_share)


RPN = AssignConfig(positive=0.7, negative=0.3, least=0.3, samples=256, positive_share=0.5)
ROI = AssignConfig(positive=0.5, negative=0.5, least=0.5, samples=512, positive_share=0.25)


def assign(boxes: jax.Array, truth: jax.Array, truth_valid: jax.Array, config: AssignConfig) -> jax.Array:
    """The ground truth of each box.

    Args:
        boxes: [n, 4], pixels.
        truth: [m, 4], m at least 1.
        truth_valid: bool [m]; False for padding.
        config: thresholds.

    Returns:
        int32 [n]: IGNORED, NEGATIVE, or 1 + the index of a ground truth. Of several ground truths whose best box it is,
        a box gets the last, as in mmdetection.
    """
    count = len(truth)
    # Computed once: compared with its own maximum below, it must not be rounded in two ways by two fusions.
    overlap = jax.lax.optimization_barrier(jnp.where(truth_valid[None], iou(boxes, truth), -1.0))
    best = overlap.max(axis=1)
    result = jnp.where(best >= config.positive, overlap.argmax(axis=1).astype(jnp.int32) + 1, IGNORED)
    result = jnp.where(best < config.negative, NEGATIVE, result)
    best_of_truth = overlap.max(axis=0)
    tied = (overlap == best_of_truth[None]) & (best_of_truth >= config.least)[None]
    last = jnp.max(jnp.where(tied, jnp.arange(1, count + 1, dtype=jnp.int32)[None], 0), axis=1)
    return jnp.where(last > 0, last, result)


def sample(key: jax.Array, assigned: jax.Array, usable: jax.Array, config: AssignConfig) -> tuple[jax.Array, jax.Array]:
    """A random choice of boxes for a loss: positives up to their share, then negatives up to the number of samples.

    Args:
        key: of the draw.
        assigned: int32 [n] of `assign`.
        usable: bool [n]; the others are not drawn.
        config: how many.

    Returns:
        (index int32 [s], valid bool [s]) with s = min(samples, n): positives first. Where there are too few boxes, the
        last places are not valid.
    """
    size = min(config.samples, len(assigned))
    noise = jax.random.uniform(key, assigned.shape)
    positive, negative = (assigned > 0) & usable, (assigned == NEGATIVE) & usable
    order_of = jnp.where(positive, 2 + noise, jnp.where(negative, 1 + noise, 0.0))
    most = min(config.max_positives, size)
    _, chosen = jax.lax.top_k(jnp.where(positive, order_of, 0.0), most)
    num_positives = jnp.minimum(positive.sum(), most)
    taken = jnp.zeros(assigned.shape, bool).at[chosen].set(jnp.arange(most) < num_positives)
    # Positives beyond their share come last, and are cut off as not valid.
    rank = jnp.where(taken, 3 + noise, jnp.where(negative, 1 + noise, 0.0))
    value, index = jax.lax.top_k(rank, size)
    return index.astype(jnp.int32), value >= 1.0
