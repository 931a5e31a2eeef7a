"""What happens in each region of interest: a class, a better box, and a mask (He et al., 2017)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

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
    """7 x 7 crops through two hidden layers to class scores and one box a class. Predictions are float32."""

    def __init__(self, channels: int, hidden: int, num_classes: int, *, sampling: int, dtype: Any, rngs: nnx.Rngs):
        def linear(inputs: int, outputs: int, init: Any, dtype: Any) -> nnx.Linear:
            return nnx.Linear(inputs, outputs, kernel_init=init, dtype=dtype, rngs=rngs)

        self.num_classes, self.sampling = num_classes, sampling
        self.fc1 = linear(BOX_BINS**2 * channels, hidden, xavier_uniform, dtype)
        self.fc2 = linear(hidden, hidden, xavier_uniform, dtype)
        self.scores = linear(hidden, num_classes + 1, nnx.initializers.normal(0.01), jnp.float32)
        self.deltas = linear(hidden, 4 * num_classes, nnx.initializers.normal(0.001), jnp.float32)

    def __call__(self, levels: tuple[jax.Array, ...], rois: jax.Array) -> tuple[jax.Array, jax.Array]:
        """levels of strides 4 to 32, rois [b, r, 4] -> ([b, r, classes + 1] logits, [b, r, classes, 4] deltas).

        The last class is the background.
        """
        crops = pyramid_roi_align(levels, rois, ROI_STRIDES, BOX_BINS, self.sampling)
        x = jax.nn.relu(self.fc1(crops.reshape(*rois.shape[:2], -1)))
        x = jax.nn.relu(self.fc2(x))
        return self.scores(x), self.deltas(x).reshape(*rois.shape[:2], self.num_classes, 4)


class MaskHead(nnx.Module):
    """14 x 14 crops through convolutions, doubled once, to a 28 x 28 mask for every class. Predictions are float32."""

    def __init__(self, channels: int, num_classes: int, *, num_convs: int, sampling: int, dtype: Any, rngs: nnx.Rngs):
        self.sampling = sampling
        settings: dict[str, Any] = {"kernel_init": _he_normal, "rngs": rngs}
        self.convs = nnx.List([nnx.Conv(channels, channels, (3, 3), dtype=dtype, **settings) for _ in range(num_convs)])
        self.upsample = nnx.ConvTranspose(channels, channels, (2, 2), (2, 2), dtype=dtype, **settings)
        self.predict = nnx.Conv(channels, num_classes, (1, 1), dtype=jnp.float32, **settings)

    def __call__(self, levels: tuple[jax.Array, ...], rois: jax.Array, labels: jax.Array) -> jax.Array:
        """The mask of each RoI's class.

        Args:
            levels: of strides 4 to 32.
            rois: [b, r, 4], pixels.
            labels: int32 [b, r], below the number of classes.

        Returns:
            Logits, float32 [b, r, 28, 28].
        """
        b, r = labels.shape
        x = pyramid_roi_align(levels, rois, ROI_STRIDES, MASK_BINS, self.sampling)
        x = x.reshape(b * r, *x.shape[2:])
        for conv in self.convs:
            x = jax.nn.relu(conv(x))
        x = self.predict(jax.nn.relu(self.upsample(x)))
        x = jnp.take_along_axis(x, labels.reshape(-1, 1, 1, 1), axis=-1)
        return x.reshape(b, r, *x.shape[1:3])


def sample_rois(
    key: jax.Array,
    rois: jax.Array,
    valid: jax.Array,
    truth: jax.Array,
    truth_valid: jax.Array,
    config: AssignConfig,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The regions that the box head learns from; the ground truth's own boxes are among the candidates.

    Args:
        key: of the draw.
        rois, valid: [b, r, 4] and bool [b, r], proposals.
        truth, truth_valid: [b, m, 4] and bool [b, m].
        config: thresholds and number.

    Returns:
        (rois [b, s, 4], matched int32 [b, s], valid bool [b, s]), positives first; `matched` is the index of a
        positive's ground truth, -1 for a negative.
    """

    def choose(key: jax.Array, rois: jax.Array, valid: jax.Array, truth: jax.Array, truth_valid: jax.Array):
        rois, valid = jnp.concatenate([truth, rois]), jnp.concatenate([truth_valid, valid])
        assigned = assign(rois, truth, truth_valid, config)
        index, drawn = sample(key, assigned, valid, config)
        return rois[index], jnp.where(drawn, assigned[index] - 1, -1), drawn

    keys = jax.random.split(key, len(rois))
    return jax.vmap(choose)(keys, rois, valid, truth.astype(jnp.float32), truth_valid)


def box_loss(
    logits: jax.Array,
    deltas: jax.Array,
    rois: jax.Array,
    matched: jax.Array,
    valid: jax.Array,
    truth: jax.Array,
    labels: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Cross-entropy of the classes and L1 of the positives' deltas, both over the number of sampled RoIs.

    Args:
        logits, deltas: of the box head.
        rois, matched, valid: of `sample_rois`.
        truth, labels: [b, m, 4] and int32 [b, m].

    Returns:
        (classification, regression, accuracy), float32 scalars; the accuracy is a share of the sampled RoIs.
    """
    background = logits.shape[-1] - 1
    positive, matched = matched >= 0, jnp.maximum(matched, 0)
    target = jnp.where(positive, jnp.take_along_axis(labels, matched, axis=1), background)
    count = jnp.maximum(valid.sum(), 1).astype(jnp.float32)
    own = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
    classification = jnp.where(valid, jax.nn.logsumexp(logits, axis=-1) - own, 0.0).sum() / count
    accuracy = jnp.where(valid, logits.argmax(axis=-1) == target, False).sum() / count
    chosen = jnp.minimum(target, background - 1)[..., None, None]
    delta = jnp.take_along_axis(deltas, chosen, axis=2)[..., 0, :]
    goal = jnp.where(positive[..., None], jnp.take_along_axis(truth, matched[..., None], axis=1), rois)
    error = jnp.abs(delta - box_ops.encode(rois, goal, box_ops.ROI_STDS))
    regression = jnp.where(positive[..., None], error, 0.0).sum() / count
    return classification, regression, accuracy


def mask_targets(masks: jax.Array, truth: jax.Array, rois: jax.Array) -> jax.Array:
    """The ground truth's masks as a RoI sees them, from masks that each fill their own box.

    Args:
        masks: [b, r, s, s], the mask of each RoI's object over the object's box, 0 or 1.
        truth: [b, r, 4], those boxes.
        rois: [b, r, 4].

    Returns:
        float32 [b, r, 28, 28], 1 where at least half of a bin's samples lie in the mask; beyond the box nothing does.
    """
    size = masks.shape[-1]
    side = jnp.maximum(jnp.tile(truth[..., 2:] - truth[..., :2], 2), 1e-6)
    place = (rois - jnp.tile(truth[..., :2], 2)) / side * size
    rows = axis_weights(place[..., 1], place[..., 3], size, MASK_SIZE, 0)
    columns = axis_weights(place[..., 0], place[..., 2], size, MASK_SIZE, 0)
    share = jnp.einsum("brih,brhw,brjw->brij", rows, masks.astype(jnp.float32), columns)
    return (share >= 0.5).astype(jnp.float32)


def mask_loss(logits: jax.Array, targets: jax.Array, positive: jax.Array) -> jax.Array:
    """Mean binary cross-entropy over the pixels of the positive RoIs; logits and targets [b, r, 28, 28]."""
    entropy = jax.nn.softplus(logits) - logits * targets
    mean = entropy.mean(axis=(2, 3))
    return jnp.where(positive, mean, 0.0).sum() / jnp.maximum(positive.sum(), 1)


def select(
    logits: jax.Array,
    deltas: jax.Array,
    rois: jax.Array,
    valid: jax.Array,
    sizes: jax.Array,
    score_threshold: float,
    number: int,
) -> dict[str, jax.Array]:
    """Detections from the box head's predictions: every class thinned by itself, then the best of all classes.

    No RoI and no class is left out beforehand.

    Args:
        logits, deltas: of the box head.
        rois, valid: proposals.
        sizes: float32 [b, 2], (h, w) of the images within the padded batch.
        score_threshold: least probability.
        number: detections of an image, at most.

    Returns:
        "boxes" float32 [b, k, 4] in pixels, "scores" float32 [b, k] (0 where there is none), "labels" int32 [b, k],
        "valid" bool [b, k], best first, and "survivors" int32 [b]: how many there were before the best were taken.
    """
    b, _, classes, _ = deltas.shape
    scores = jax.nn.softmax(logits, axis=-1)[..., :classes]
    boxes = box_ops.clip(box_ops.decode(rois[:, :, None], deltas, box_ops.ROI_STDS), sizes)

    def thin(of_class: tuple[jax.Array, jax.Array]) -> jax.Array:
        boxes, scores = of_class
        usable = valid & (scores > score_threshold)
        return jax.vmap(lambda b, s, u: nms(b, s, u, NMS_THRESHOLD))(boxes, scores, usable)

    # One class after the other, or all pairs of boxes of all classes would be in memory at once.
    keep = jax.lax.map(thin, (boxes.transpose(2, 0, 1, 3), scores.transpose(2, 0, 1))).transpose(1, 2, 0)
    score = jnp.where(keep, scores, 0.0).reshape(b, -1)
    score, index = jax.lax.top_k(score, min(number, score.shape[1]))
    boxes = jnp.take_along_axis(boxes.reshape(b, -1, 4), index[..., None], axis=1)
    return {
        "boxes": boxes,
        "scores": score,
        "labels": (index % classes).astype(jnp.int32),
        "valid": score > 0,
        "survivors": keep.sum(axis=(1, 2)).astype(jnp.int32),
    }
