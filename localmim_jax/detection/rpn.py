"""The region proposal network: which anchors hold an object, and how to move them onto it (Ren et al., 2015)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from localmim_jax.detection import anchors as anchor_boxes
from localmim_jax.detection import boxes as box_ops
from localmim_jax.detection.assign import AssignConfig, assign, sample
from localmim_jax.detection.fpn import STRIDES
from localmim_jax.detection.nms import nms

NMS_THRESHOLD = 0.7
_normal = nnx.initializers.normal(0.01)


class RPN(nnx.Module):
    """A 3x3 convolution and two 1x1 predictions, the same for every level. Predictions are float32."""

    def __init__(self, channels: int, *, anchor_scale: float, dtype: Any, rngs: nnx.Rngs):
        self.anchor_scale = anchor_scale
        ratios = len(anchor_boxes.RATIOS)
        self.conv = nnx.Conv(channels, channels, (3, 3), dtype=dtype, kernel_init=_normal, rngs=rngs)
        self.objectness = nnx.Conv(channels, ratios, (1, 1), dtype=jnp.float32, kernel_init=_normal, rngs=rngs)
        self.deltas = nnx.Conv(channels, 4 * ratios, (1, 1), dtype=jnp.float32, kernel_init=_normal, rngs=rngs)

    def __call__(self, levels: tuple[jax.Array, ...]) -> tuple[list[jax.Array], list[jax.Array]]:
        """([b, n] logits, [b, n, 4] deltas) of each level, in the order of `anchors`."""
        logits, deltas = [], []
        for x in levels:
            x = jax.nn.relu(self.conv(x))
            logits.append(self.objectness(x).reshape(len(x), -1))
            deltas.append(self.deltas(x).reshape(len(x), -1, 4))
        return logits, deltas

    def anchors(self, levels: tuple[jax.Array, ...]) -> list[jax.Array]:
        """float32 [n, 4] of each level, pixels."""
        return [
            jnp.asarray(anchor_boxes.anchors(x.shape[1:3], stride, self.anchor_scale))
            for x, stride in zip(levels, STRIDES, strict=True)
        ]


def propose(
    anchors: list[jax.Array],
    logits: list[jax.Array],
    deltas: list[jax.Array],
    sizes: jax.Array,
    candidates: int,
    number: int,
) -> tuple[jax.Array, jax.Array]:
    """The best regions of every image, without a gradient.

    Each level's best candidates are moved, cut to the image and thinned by `nms`; of all levels' survivors the best
    remain.

    Args:
        anchors, logits, deltas: of each level.
        sizes: float32 [b, 2], (h, w) of the images within the padded batch.
        candidates: of each level, at most.
        number: of regions in all, at most.

    Returns:
        (boxes float32 [b, r, 4], valid bool [b, r]), best first.
    """
    boxes, scores = [], []
    for prior, logit, delta in zip(anchors, logits, deltas, strict=True):
        logit, delta = jax.lax.stop_gradient((logit.astype(jnp.float32), delta))
        score, index = jax.lax.top_k(logit, min(candidates, logit.shape[1]))
        moved = box_ops.decode(prior[index], jnp.take_along_axis(delta, index[..., None], axis=1), box_ops.RPN_STDS)
        moved = box_ops.clip(moved, sizes)
        has_area = (moved[..., 2] > moved[..., 0]) & (moved[..., 3] > moved[..., 1])
        keep = jax.vmap(lambda b, s, v: nms(b, s, v, NMS_THRESHOLD))(moved, score, has_area)
        boxes.append(moved)
        scores.append(jnp.where(keep, score, -jnp.inf))
    score, index = jax.lax.top_k(jnp.concatenate(scores, axis=1), min(number, sum(s.shape[1] for s in scores)))
    chosen = jnp.take_along_axis(jnp.concatenate(boxes, axis=1), index[..., None], axis=1)
    return chosen, score > -jnp.inf


def rpn_loss(
    key: jax.Array,
    anchors: list[jax.Array],
    logits: list[jax.Array],
    deltas: list[jax.Array],
    sizes: jax.Array,
    centers: jax.Array,
    truth: jax.Array,
    truth_valid: jax.Array,
    config: AssignConfig,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Binary cross-entropy of objectness and L1 of the positives' deltas, over the sampled anchors of all images.

    Args:
        key: of the sampling.
        anchors, logits, deltas: of each level.
        sizes: float32 [b, 2]; anchors centered beyond them are in the padding, and not used.
        centers: float32 [n, 2], (y, x) of all anchors.
        truth: float32 [b, m, 4], pixels.
        truth_valid: bool [b, m].
        config: thresholds and number of samples.

    Returns:
        (classification, regression, positives), float32 scalars; both losses are divided by the number of samples,
        `positives` is the mean number of an image's sampled positives.
    """
    prior = jnp.concatenate(anchors)
    logit, delta = jnp.concatenate(logits, axis=1), jnp.concatenate(deltas, axis=1)
    usable = (centers[None] < sizes[:, None]).all(axis=-1)

    def choose(key: jax.Array, truth: jax.Array, valid: jax.Array, usable: jax.Array):
        assigned = assign(prior, truth, valid, config)
        index, drawn = sample(key, assigned, usable, config)
        assigned = assigned[index]
        matched = truth[jnp.maximum(assigned - 1, 0)]
        positive = (assigned > 0) & drawn
        # Where there is no target, the anchor's own place is a finite one.
        target = box_ops.encode(prior[index], jnp.where(positive[:, None], matched, prior[index]), box_ops.RPN_STDS)
        return index, drawn, positive, target

    index, drawn, positive, target = jax.vmap(choose)(jax.random.split(key, len(sizes)), truth, truth_valid, usable)
    logit = jnp.take_along_axis(logit, index, axis=1)
    delta = jnp.take_along_axis(delta, index[..., None], axis=1)
    count = jnp.maximum(drawn.sum(), 1).astype(jnp.float32)
    entropy = jax.nn.softplus(logit) - logit * positive.astype(jnp.float32)
    classification = jnp.where(drawn, entropy, 0.0).sum() / count
    regression = jnp.where(positive[..., None], jnp.abs(delta - target), 0.0).sum() / count
    return classification, regression, positive.sum() / jnp.float32(len(sizes))
