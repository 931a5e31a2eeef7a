"""Heads on regions of interest: a class, a refined box, and a mask (He et al., 2017)."""

from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, Integer, PRNGKeyArray

from localmim_jax.detection import boxes as box_ops
from localmim_jax.detection.assign import AssignConfig, assign, sample
from localmim_jax.detection.fpn import STRIDES
from localmim_jax.detection.nms import nms
from localmim_jax.detection.roi_align import axis_weights, pyramid_roi_align
from localmim_jax.models.blocks import xavier_uniform

BOX_BINS, MASK_BINS = 7, 14
MASK_SIZE = 2 * MASK_BINS
ROI_STRIDES = STRIDES[:4]
NMS_THRESHOLD = 0.5
_he_normal = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")


class BoxHead(nnx.Module):
    """7 x 7 crops -> two hidden layers -> class logits and one box per class. Predictions are float32.

    Args:
        channels: channels of the levels.
        width: width of the hidden layers.
        num_classes: number of classes without the background.
        sampling_ratio: RoIAlign samples along a side of a bin; 0 for the adaptive rule.
        dtype: compute dtype of the hidden layers.
    """

    def __init__(self, channels: int, width: int, num_classes: int, *, sampling_ratio: int, dtype: Any, rngs: nnx.Rngs):
        def linear(inputs: int, outputs: int, init: Any, dtype: Any) -> nnx.Linear:
            return nnx.Linear(inputs, outputs, kernel_init=init, dtype=dtype, rngs=rngs)

        self.num_classes, self.sampling_ratio = num_classes, sampling_ratio
        self.fc1 = linear(BOX_BINS**2 * channels, width, xavier_uniform, dtype)
        self.fc2 = linear(width, width, xavier_uniform, dtype)
        self.scores = linear(width, num_classes + 1, nnx.initializers.normal(0.01), jnp.float32)
        self.deltas = linear(width, 4 * num_classes, nnx.initializers.normal(0.001), jnp.float32)

    @jax.named_scope("box_head")
    def __call__(
        self, levels: tuple[Float[Array, "b _h _w c"], ...], rois: Float[Array, "b r 4"]
    ) -> tuple[Float32[Array, "b r logits"], Float32[Array, "b r classes 4"]]:
        """(logits, deltas) from levels of strides 4 to 32 and RoIs in pixels. The last logit is the background."""
        crops = pyramid_roi_align(levels, rois, ROI_STRIDES, BOX_BINS, self.sampling_ratio)
        x = jax.nn.relu(self.fc1(rearrange(crops, "b r i j c -> b r (i j c)")))
        x = jax.nn.relu(self.fc2(x))
        return self.scores(x), rearrange(self.deltas(x), "b r (classes delta) -> b r classes delta", delta=4)


class MaskHead(nnx.Module):
    """14 x 14 crops -> convolutions -> 2x upsampling -> a 28 x 28 mask per class. Predictions are float32.

    Args:
        channels: channels of the levels and of the convolutions.
        num_classes: number of classes without the background.
        num_convs: number of 3x3 convolutions.
        sampling_ratio: RoIAlign samples along a side of a bin; 0 for the adaptive rule.
        dtype: compute dtype of the convolutions.
    """

    def __init__(
        self, channels: int, num_classes: int, *, num_convs: int, sampling_ratio: int, dtype: Any, rngs: nnx.Rngs
    ):
        self.sampling_ratio = sampling_ratio
        settings: dict[str, Any] = {"kernel_init": _he_normal, "rngs": rngs}
        self.convs = nnx.List([nnx.Conv(channels, channels, (3, 3), dtype=dtype, **settings) for _ in range(num_convs)])
        self.upsample = nnx.ConvTranspose(channels, channels, (2, 2), (2, 2), dtype=dtype, **settings)
        self.predict = nnx.Conv(channels, num_classes, (1, 1), dtype=jnp.float32, **settings)

    @jax.named_scope("mask_head")
    def __call__(
        self, levels: tuple[Float[Array, "b _h _w c"], ...], rois: Float[Array, "b r 4"], labels: Int[Array, "b r"]
    ) -> Float32[Array, "b r 28 28"]:
        """Logits of the mask of each RoI's class, from levels of strides 4 to 32, RoIs in pixels and class labels."""
        x = pyramid_roi_align(levels, rois, ROI_STRIDES, MASK_BINS, self.sampling_ratio)
        x = rearrange(x, "b r i j c -> (b r) i j c")
        for conv in self.convs:
            x = jax.nn.relu(conv(x))
        x = self.predict(jax.nn.relu(self.upsample(x)))
        x = jnp.take_along_axis(x, labels.reshape(-1, 1, 1, 1), axis=-1)
        return x.reshape(*labels.shape, *x.shape[1:3])


@jax.named_scope("sample_rois")
def sample_rois(
    key: PRNGKeyArray,
    rois: Float32[Array, "b r 4"],
    valid: Bool[Array, "b r"],
    gt_boxes: Float[Array, "b m 4"],
    gt_valid: Bool[Array, "b m"],
    config: AssignConfig,
) -> tuple[Float32[Array, "b s 4"], Int32[Array, "b s"], Bool[Array, "b s"]]:
    """The regions that the heads learn from, drawn from the proposals and the ground-truth boxes.

    Args:
        key: key of the draw.
        rois, valid: proposals.
        gt_boxes, gt_valid: ground-truth boxes.
        config: thresholds and number of samples.

    Returns:
        (rois, matched, valid), positives first. `matched` is the index of a positive's ground-truth box, -1 for a
        negative.
    """

    def choose(key: jax.Array, rois: jax.Array, valid: jax.Array, gt_boxes: jax.Array, gt_valid: jax.Array):
        rois, valid = jnp.concatenate([gt_boxes, rois]), jnp.concatenate([gt_valid, valid])
        assigned = assign(rois, gt_boxes, gt_valid, config)
        index, drawn = sample(key, assigned, valid, config)
        return rois[index], jnp.where(drawn, assigned[index] - 1, -1), drawn

    keys = jax.random.split(key, len(rois))
    return jax.vmap(choose)(keys, rois, valid, gt_boxes.astype(jnp.float32), gt_valid)


@jax.named_scope("box_loss")
def box_loss(
    logits: Float32[Array, "b s logits"],
    deltas: Float32[Array, "b s classes 4"],
    rois: Float32[Array, "b s 4"],
    matched: Int[Array, "b s"],
    valid: Bool[Array, "b s"],
    gt_boxes: Float32[Array, "b m 4"],
    labels: Int[Array, "b m"],
) -> tuple[Float32[Array, ""], Float32[Array, ""], Float32[Array, ""]]:
    """Cross-entropy of the classes and L1 of the positives' deltas, both divided by the number of sampled RoIs.

    Args:
        logits, deltas: predictions of the box head.
        rois, matched, valid: samples of `sample_rois`.
        gt_boxes, labels: ground truth.

    Returns:
        (classification, regression, accuracy); the accuracy is the fraction of sampled RoIs classified correctly.
    """
    background = logits.shape[-1] - 1
    positive, matched = matched >= 0, jnp.maximum(matched, 0)
    target = jnp.where(positive, jnp.take_along_axis(labels, matched, axis=1), background)
    count = jnp.maximum(valid.sum(), 1).astype(jnp.float32)
    target_logit = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
    classification = jnp.where(valid, jax.nn.logsumexp(logits, axis=-1) - target_logit, 0.0).sum() / count
    accuracy = jnp.where(valid, logits.argmax(axis=-1) == target, False).sum() / count
    chosen = jnp.minimum(target, background - 1)[..., None, None]
    delta = jnp.take_along_axis(deltas, chosen, axis=2)[..., 0, :]
    target_box = jnp.where(positive[..., None], jnp.take_along_axis(gt_boxes, matched[..., None], axis=1), rois)
    error = jnp.abs(delta - box_ops.encode(rois, target_box, box_ops.ROI_STDS))
    regression = jnp.where(positive[..., None], error, 0.0).sum() / count
    return classification, regression, accuracy


@jax.named_scope("mask_targets")
def mask_targets(
    gt_masks: Integer[Array, "b r s s"], gt_boxes: Float32[Array, "b r 4"], rois: Float32[Array, "b r 4"]
) -> Float32[Array, "b r 28 28"]:
    """Ground-truth masks cropped to RoIs.

    Args:
        gt_masks: mask of each RoI's object over the object's box, 0 or 1.
        gt_boxes: those boxes, in pixels.
        rois: RoIs, in pixels.

    Returns:
        1 where at least half of a bin's samples lie in the mask, else 0. Outside the object's box it is 0.
    """
    size = gt_masks.shape[-1]
    side = jnp.maximum(jnp.tile(gt_boxes[..., 2:] - gt_boxes[..., :2], 2), 1e-6)
    place = (rois - jnp.tile(gt_boxes[..., :2], 2)) / side * size
    rows = axis_weights(place[..., 1], place[..., 3], size, MASK_SIZE, 0)
    columns = axis_weights(place[..., 0], place[..., 2], size, MASK_SIZE, 0)
    covered = jnp.einsum("brih,brhw,brjw->brij", rows, gt_masks.astype(jnp.float32), columns)
    return (covered >= 0.5).astype(jnp.float32)


@jax.named_scope("mask_loss")
def mask_loss(
    logits: Float32[Array, "b r 28 28"], targets: Float32[Array, "b r 28 28"], positive: Bool[Array, "b r"]
) -> Float32[Array, ""]:
    """Mean binary cross-entropy over the pixels of the positive RoIs."""
    entropy = jax.nn.softplus(logits) - logits * targets
    mean = entropy.mean(axis=(2, 3))
    return jnp.where(positive, mean, 0.0).sum() / jnp.maximum(positive.sum(), 1)


@jax.named_scope("detections")
def select(
    logits: Float32[Array, "b r logits"],
    deltas: Float32[Array, "b r classes 4"],
    rois: Float32[Array, "b r 4"],
    valid: Bool[Array, "b r"],
    sizes: Float32[Array, "b 2"],
    score_threshold: float,
    max_detections: int,
) -> dict[str, jax.Array]:
    """Detections from the box head's predictions: NMS within every class, then the best of all classes.

    No RoI and no class is left out before.

    Args:
        logits, deltas: predictions of the box head.
        rois, valid: proposals.
        sizes: (h, w) of each image without its padding.
        score_threshold: minimum probability.
        max_detections: maximum number of detections per image.

    Returns:
        "boxes" float32 [b, k, 4] in pixels, "scores" float32 [b, k] (0 for padding), "labels" int32 [b, k], "valid"
        bool [b, k], best first; and "survivors" int32 [b], the number of detections before the best were taken.
    """
    classes = deltas.shape[2]
    scores = jax.nn.softmax(logits, axis=-1)[..., :classes]
    boxes = box_ops.clip(box_ops.decode(rois[:, :, None], deltas, box_ops.ROI_STDS), sizes)

    def nms_of_class(of_class: tuple[jax.Array, jax.Array]) -> jax.Array:
        boxes, scores = of_class
        usable = valid & (scores > score_threshold)
        return jax.vmap(lambda b, s, u: nms(b, s, u, NMS_THRESHOLD))(boxes, scores, usable)

    # One class at a time: all pairs of boxes of all classes would not fit in memory.
    by_class = rearrange(boxes, "b r k box -> k b r box"), rearrange(scores, "b r k -> k b r")
    keep = rearrange(jax.lax.map(nms_of_class, by_class), "k b r -> b r k")
    score = rearrange(jnp.where(keep, scores, 0.0), "b r k -> b (r k)")
    score, index = jax.lax.top_k(score, min(max_detections, score.shape[1]))
    boxes = jnp.take_along_axis(rearrange(boxes, "b r k box -> b (r k) box"), index[..., None], axis=1)
    return {
        "boxes": boxes,
        "scores": score,
        "labels": (index % classes).astype(jnp.int32),
        "valid": score > 0,
        "survivors": keep.sum(axis=(1, 2)).astype(jnp.int32),
    }
