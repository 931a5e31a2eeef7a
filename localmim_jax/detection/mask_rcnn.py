"""Mask R-CNN on a pyramid of backbone features: its losses for training, and its detections.

Supplement, "Object detection and segmentation on COCO". Every image of a batch is padded to the batch's shape, and
every list of boxes to a fixed length.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from localmim_jax.detection import assign, roi, rpn
from localmim_jax.detection.anchors import SCALE, anchor_centers
from localmim_jax.detection.fpn import FPN, STRIDES
from localmim_jax.errors import ConfigError
from localmim_jax.models.pyramid import PyramidBackbone, dense_encoder, pyramid_taps
from localmim_jax.models.swin import SwinConfig
from localmim_jax.models.vit import ViTConfig

Truth = Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class MaskRCNNConfig:
    """A detector. The defaults are mmdetection's Mask R-CNN, which the paper trains.

    Attributes:
        encoder: the backbone, as `heads.pyramid.dense_encoder` gives it.
        num_classes: without the background.
        channels: of the pyramid's levels and of the convolutions on them.
        box_head_width: width of the box head's two layers.
        mask_convs: 3x3 convolutions of the mask head.
        anchor_scale: side of the square anchor in strides of its level.
        rpn_samples, roi_samples: anchors and regions of an image that the losses look at.
        pre_nms_top_n, pre_nms_top_n_test: maximum number of proposals per level before NMS, in training and at test.
        post_nms_top_n: maximum number of proposals per image after NMS.
        sampling_ratio: RoIAlign samples along a side of a bin; 0 for the adaptive rule.
        score_threshold: least probability of a detection.
        detections: of an image, at most.
    """

    encoder: ViTConfig | SwinConfig
    num_classes: int = 80
    channels: int = 256
    box_head_width: int = 1024
    mask_convs: int = 4
    anchor_scale: float = SCALE
    rpn_samples: int = 256
    roi_samples: int = 512
    pre_nms_top_n: int = 2000
    pre_nms_top_n_test: int = 1000
    post_nms_top_n: int = 1000
    sampling_ratio: int = 0
    score_threshold: float = 0.05
    detections: int = 100

    def __post_init__(self) -> None:
        counts = ("num_classes", "channels", "box_head_width", "detections")
        for key in (*counts, "pre_nms_top_n", "pre_nms_top_n_test", "post_nms_top_n"):
            if getattr(self, key) < 1:
                raise ConfigError(f"model.{key} is {getattr(self, key)}; it must be at least 1")
        for key in ("rpn_samples", "roi_samples"):
            if getattr(self, key) < 4:
                raise ConfigError(f"model.{key} is {getattr(self, key)}; it must be at least 4, a quarter are positive")
        if self.mask_convs < 0 or self.sampling_ratio < 0 or self.anchor_scale <= 0:
            raise ConfigError(
                "model.mask_convs and model.sampling_ratio must not be negative; model.anchor_scale must be above 0"
            )
        if not 0 <= self.score_threshold < 1:
            raise ConfigError(f"model.score_threshold is {self.score_threshold}; it must be in [0, 1)")


class MaskRCNN(PyramidBackbone):
    """images -> losses, or detections."""

    def __init__(self, config: MaskRCNNConfig, *, rngs: nnx.Rngs):
        encoder = dense_encoder(config.encoder)
        super().__init__(encoder, rngs=rngs)
        self.config = config
        channels, dtype = config.channels, encoder.dtype
        shared = {"sampling": config.sampling_ratio, "dtype": dtype, "rngs": rngs}
        widths = tuple(encoder.feature_width(tap) for tap in pyramid_taps(encoder))
        self.fpn = FPN(widths, channels, dtype=dtype, rngs=rngs)
        self.rpn = rpn.RPN(channels, anchor_scale=config.anchor_scale, dtype=dtype, rngs=rngs)
        self.box_head = roi.BoxHead(channels, config.box_head_width, config.num_classes, **shared)
        self.mask_head = roi.MaskHead(channels, config.num_classes, num_convs=config.mask_convs, **shared)

    def levels(self, images: jax.Array, key: jax.Array | None = None) -> tuple[jax.Array, ...]:
        """The five maps of normalized images [b, h, w, c]; h and w are multiples of the coarsest backbone stride."""
        return self.fpn(self.feature_maps(images, key))

    def losses(self, images: jax.Array, truth: Truth, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The training loss.

        Args:
            images: [b, h, w, c], normalized, padded at the bottom and right.
            truth: "size" [b, 2], (h, w) of each image without its padding; "boxes" [b, m, 4] in pixels, "labels" int32
                [b, m], -1 for padding; "masks" [b, m, s, s], each over its own box, 0 or 1.
            key: of the samplings and the drop path.

        Returns:
            (scalar float32, metrics): five losses by name with equal weights, and "count/..." of an image's mean number
            of objects, proposals and positives.
        """
        config = self.config
        drop_key, rpn_key, roi_key = jax.random.split(key, 3)
        sizes, boxes = truth["size"].astype(jnp.float32), truth["boxes"].astype(jnp.float32)
        labels, real = jnp.maximum(truth["labels"], 0), truth["labels"] >= 0
        levels = self.levels(images, drop_key)
        anchors, (logits, deltas) = self.rpn.anchors(levels), self.rpn(levels)
        centers = np.concatenate(
            [anchor_centers((x.shape[1], x.shape[2]), stride) for x, stride in zip(levels, STRIDES, strict=True)]
        )
        rpn_class, rpn_box, rpn_positives = rpn.rpn_loss(
            rpn_key,
            anchors,
            logits,
            deltas,
            sizes,
            jnp.asarray(centers),
            boxes,
            real,
            dataclasses.replace(assign.RPN, samples=config.rpn_samples),
        )
        proposals, valid = rpn.propose(anchors, logits, deltas, sizes, config.pre_nms_top_n, config.post_nms_top_n)
        sampling = dataclasses.replace(assign.ROI, samples=config.roi_samples)
        rois, matched, drawn = roi.sample_rois(roi_key, proposals, valid, boxes, real, sampling)
        predicted = self.box_head(levels[:4], rois)
        box_class, box_box, accuracy = roi.box_loss(*predicted, rois, matched, drawn, boxes, labels)

        most = min(sampling.max_positives, rois.shape[1])  # positives come first
        rois, matched = rois[:, :most], matched[:, :most]
        positive, of = matched >= 0, jnp.maximum(matched, 0)
        mask_logits = self.mask_head(levels[:4], rois, jnp.take_along_axis(labels, of, axis=1))
        own_masks = jnp.take_along_axis(truth["masks"], of[..., None, None], axis=1)
        targets = roi.mask_targets(own_masks, jnp.take_along_axis(boxes, of[..., None], axis=1), rois)
        metrics = {
            "rpn_class": rpn_class,
            "rpn_box": rpn_box,
            "box_class": box_class,
            "box_box": box_box,
            "mask": roi.mask_loss(mask_logits, targets, positive),
        }
        total = sum(metrics.values(), jnp.float32(0))
        count = jnp.float32(len(images))
        return total, metrics | {
            "count/objects": real.sum() / count,
            "count/proposals": valid.sum() / count,
            "count/rpn_positives": rpn_positives,
            "count/roi_positives": positive.sum() / count,
            "box_head/accuracy": accuracy,
        }

    def detect(self, images: jax.Array, sizes: jax.Array) -> dict[str, jax.Array]:
        """Detections of normalized images.

        Args:
            images: [b, h, w, c], padded at the bottom and right.
            sizes: [b, 2], (h, w) of each image without its padding.

        Returns:
            What `heads.roi.select` gives, boxes in pixels of the images as given, and "masks" float32 [b, k, 28, 28]:
            the probability of the object over each box.
        """
        config, sizes = self.config, sizes.astype(jnp.float32)
        levels = self.levels(images)
        found = rpn.propose(
            self.rpn.anchors(levels), *self.rpn(levels), sizes, config.pre_nms_top_n_test, config.post_nms_top_n
        )
        detections = roi.select(
            *self.box_head(levels[:4], found[0]), *found, sizes, config.score_threshold, config.detections
        )
        logits = self.mask_head(levels[:4], detections["boxes"], detections["labels"])
        return detections | {"masks": jax.nn.sigmoid(logits)}
