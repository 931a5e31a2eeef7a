"""Non-maximum suppression in static shapes, exactly what the greedy loop over boxes gives."""

import jax
import jax.numpy as jnp

from localmim_jax.detection.boxes import iou


def nms(boxes: jax.Array, scores: jax.Array, valid: jax.Array, threshold: float) -> jax.Array:
    """Which boxes survive: each, best first, unless it overlaps a better survivor by more than `threshold`.

    Sorted by score, a box's fate depends on the better ones alone. Starting from "all survive", the rule is applied to
    all boxes at once until nothing changes: after i rounds the first i fates are right, so it ends with the greedy
    answer, and in practice after a handful of rounds, where the greedy loop needs one for each survivor.

    Args:
        boxes: [n, 4], pixels. Add an offset to separate groups, or `jax.vmap` over them.
        scores: [n]; of equal scores the earlier box counts as better.
        valid: bool [n]; the others neither survive nor suppress.
        threshold: intersection over union.

    Returns:
        bool [n].
    """
    order = jnp.argsort(jnp.where(valid, -scores.astype(jnp.float32), jnp.inf), stable=True)
    boxes, valid = boxes[order], valid[order]
    count = len(scores)
    better = jnp.arange(count)[:, None] < jnp.arange(count)[None, :]
    suppresses = (iou(boxes, boxes) > threshold) & better  # row over column

    def again(carry: tuple[jax.Array, jax.Array]) -> jax.Array:
        return carry[1]

    def apply(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        keep, _ = carry
        new = valid & ~(suppresses & keep[:, None]).any(axis=0)
        return new, (new != keep).any()

    keep, _ = jax.lax.while_loop(again, apply, (valid, jnp.asarray(True)))
    return jnp.zeros(count, bool).at[order].set(keep, unique_indices=True)
