"""The region proposal network: scores anchors and moves them onto objects (Ren et al., 2015)."""

from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float, Float32, PRNGKeyArray

from localmim_jax.detection import anchors as anchor_boxes
from localmim_jax.detection import boxes as box_ops
from localmim_jax.detection.assign import AssignConfig, assign, sample
from localmim_jax.detection.fpn import STRIDES
from localmim_jax.detection.nms import nms

NMS_THRESHOLD = 0.7
_normal = nnx.initializers.normal(0.01)


class RPN(nnx.Module):
    """A 3x3 convolution and two 1x1 predictors, shared by all levels. Predictions are float32.

    Args:
        channels: channels of the levels.
        anchor_scale: side of a square anchor, in strides of its level.
        dtype: compute dtype of the 3x3 convolution.
    """

    def __init__(self, channels: int, *, anchor_scale: float, dtype: Any, rngs: nnx.Rngs):
        self.anchor_scale = anchor_scale
        ratios = len(anchor_boxes.RATIOS)
        self.conv = nnx.Conv(channels, channels, (3, 3), dtype=dtype, kernel_init=_normal, rngs=rngs)
        self.objectness = nnx.Conv(channels, ratios, (1, 1), dtype=jnp.float32, kernel_init=_normal, rngs=rngs)
        self.deltas = nnx.Conv(channels, 4 * ratios, (1, 1), dtype=jnp.float32, kernel_init=_normal, rngs=rngs)

    @jax.named_scope("rpn")
    def __call__(
        self, levels: tuple[Float[Array, "b _h _w c"], ...]
    ) -> tuple[list[Float32[Array, "b _n"]], list[Float32[Array, "b _n 4"]]]:
        """(objectness logits, deltas) of every anchor of each level, in the order of `anchors`."""
        logits, deltas = [], []
        for x in levels:
            x = jax.nn.relu(self.conv(x))
            logits.append(rearrange(self.objectness(x), "b h w ratio -> b (h w ratio)"))
            deltas.append(self.deltas(x).reshape(len(x), -1, 4))
        return logits, deltas

    def anchors(self, levels: tuple[Float[Array, "b _h _w c"], ...]) -> list[Float32[Array, "_n 4"]]:
        """Anchors of each level, in pixels."""
        return [
            jnp.asarray(anchor_boxes.anchors((x.shape[1], x.shape[2]), stride, self.anchor_scale))
            for x, stride in zip(levels, STRIDES, strict=True)
        ]


@jax.named_scope("proposals")
def propose(
    anchors: list[Float32[Array, "_n 4"]],
    logits: list[Float[Array, "b _n"]],
    deltas: list[Float[Array, "b _n 4"]],
    sizes: Float32[Array, "b 2"],
    pre_nms_top_n: int,
    post_nms_top_n: int,
) -> tuple[Float32[Array, "b r 4"], Bool[Array, "b r"]]:
    """The best regions of every image, best first. They get no gradient.

    On each level, the anchors with the highest scores are moved, clipped to the image and filtered by `nms`. The best
    survivors of all levels are returned.

    Args:
        anchors, logits, deltas: one array per level.
        sizes: (h, w) of each image without its padding.
        pre_nms_top_n: maximum number of anchors per level before NMS.
        post_nms_top_n: maximum number of regions per image after NMS.

    Returns:
        (boxes in pixels, valid).
    """
    boxes, scores = [], []
    for anchor, logit, delta in zip(anchors, logits, deltas, strict=True):
        logit, delta = jax.lax.stop_gradient((logit.astype(jnp.float32), delta))
        score, index = jax.lax.top_k(logit, min(pre_nms_top_n, logit.shape[1]))
        moved = box_ops.decode(anchor[index], jnp.take_along_axis(delta, index[..., None], axis=1), box_ops.RPN_STDS)
        moved = box_ops.clip(moved, sizes)
        has_area = (moved[..., 2] > moved[..., 0]) & (moved[..., 3] > moved[..., 1])
        keep = jax.vmap(lambda b, s, v: nms(b, s, v, NMS_THRESHOLD))(moved, score, has_area)
        boxes.append(moved)
        scores.append(jnp.where(keep, score, -jnp.inf))
    score, index = jax.lax.top_k(jnp.concatenate(scores, axis=1), min(post_nms_top_n, sum(s.shape[1] for s in scores)))
    chosen = jnp.take_along_axis(jnp.concatenate(boxes, axis=1), index[..., None], axis=1)
    return chosen, score > -jnp.inf


@jax.named_scope("rpn_loss")
def rpn_loss(
    key: PRNGKeyArray,
    anchors: list[Float32[Array, "_n 4"]],
    logits: list[Float[Array, "b _n"]],
    deltas: list[Float[Array, "b _n 4"]],
    sizes: Float32[Array, "b 2"],
    centers: Float32[Array, "n 2"],
    gt_boxes: Float32[Array, "b m 4"],
    gt_valid: Bool[Array, "b m"],
    config: AssignConfig,
) -> tuple[Float32[Array, ""], Float32[Array, ""], Float32[Array, ""]]:
    """Binary cross-entropy of objectness and L1 of the positives' deltas, over the sampled anchors of all images.

    Args:
        key: key of the sampling.
        anchors, logits, deltas: one array per level.
        sizes: (h, w) of each image. Anchors centered outside are in the padding and are not used.
        centers: (y, x) of all anchors, in pixels.
        gt_boxes: ground-truth boxes, in pixels.
        gt_valid: False for padding.
        config: thresholds and number of samples.

    Returns:
        (classification, regression, positives). Both losses are divided by the number of samples; `positives` is the
        mean number of sampled positives per image.
    """
    anchor = jnp.concatenate(anchors)
    logit, delta = jnp.concatenate(logits, axis=1), jnp.concatenate(deltas, axis=1)
    usable = (centers[None] < sizes[:, None]).all(axis=-1)

    def choose(key: jax.Array, gt_boxes: jax.Array, gt_valid: jax.Array, usable: jax.Array):
        assigned = assign(anchor, gt_boxes, gt_valid, config)
        index, drawn = sample(key, assigned, usable, config)
        assigned = assigned[index]
        matched = gt_boxes[jnp.maximum(assigned - 1, 0)]
        positive = (assigned > 0) & drawn
        # Without a ground-truth box, the anchor is its own target: its deltas are finite.
        target = box_ops.encode(anchor[index], jnp.where(positive[:, None], matched, anchor[index]), box_ops.RPN_STDS)
        return index, drawn, positive, target

    index, drawn, positive, target = jax.vmap(choose)(jax.random.split(key, len(sizes)), gt_boxes, gt_valid, usable)
    logit = jnp.take_along_axis(logit, index, axis=1)
    delta = jnp.take_along_axis(delta, index[..., None], axis=1)
    count = jnp.maximum(drawn.sum(), 1).astype(jnp.float32)
    entropy = jax.nn.softplus(logit) - logit * positive.astype(jnp.float32)
    classification = jnp.where(drawn, entropy, 0.0).sum() / count
    regression = jnp.where(positive[..., None], jnp.abs(delta - target), 0.0).sum() / count
    return classification, regression, positive.sum() / jnp.float32(len(sizes))
