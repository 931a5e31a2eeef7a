"""Non-maximum suppression with static shapes. It gives exactly the result of the greedy loop over boxes."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from localmim_jax.detection.boxes import iou


@jax.named_scope("nms")
def nms(
    boxes: Float[Array, "n 4"], scores: Float[Array, " n"], valid: Bool[Array, " n"], threshold: float
) -> Bool[Array, " n"]:
    """The boxes that survive: a box is dropped where its IoU with a better survivor is above `threshold`.

    Whether a box survives depends only on the boxes with higher scores. The rule is applied to all boxes at once,
    starting from "all survive", until nothing changes. After i rounds the i best boxes are decided, so the result is
    the greedy one. In practice a few rounds suffice, where the greedy loop needs one per survivor.

    Args:
        boxes: boxes in pixels. Use `jax.vmap` for several groups.
        scores: higher is better; of equal scores the first box is the better one.
        valid: False for boxes that neither survive nor suppress others.
        threshold: maximum IoU of two survivors.
    """
    order = jnp.argsort(jnp.where(valid, -scores.astype(jnp.float32), jnp.inf), stable=True)
    boxes, valid = boxes[order], valid[order]
    count = len(scores)
    better = jnp.arange(count)[:, None] < jnp.arange(count)[None, :]
    suppresses = (iou(boxes, boxes) > threshold) & better  # row over column

    def changed(carry: tuple[jax.Array, jax.Array]) -> jax.Array:
        return carry[1]

    def apply(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        keep, _ = carry
        new = valid & ~(suppresses & keep[:, None]).any(axis=0)
        return new, (new != keep).any()

    keep, _ = jax.lax.while_loop(changed, apply, (valid, jnp.asarray(True)))
    return jnp.zeros(count, bool).at[order].set(keep, unique_indices=True)
