"""Mask R-CNN on a feature pyramid: losses for training, and detections.

Supplement, "Object detection and segmentation on COCO". The images of a batch are padded to one shape, and every list
of boxes to a fixed length.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Float32, Int, PRNGKeyArray, Real

from localmim_jax.detection import assign, roi, rpn
from localmim_jax.detection.anchors import anchor_centers
from localmim_jax.detection.fpn import FPN, STRIDES
from localmim_jax.errors import ConfigError
from localmim_jax.models.base import EncoderConfig, ModelConfig
from localmim_jax.models.pyramid import PyramidBackbone

Levels = tuple[Float[Array, "b _h _w d"], ...]
Losses = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class MaskRCNNConfig(ModelConfig):
    """Settings of the detector.

    Attributes:
        encoder: backbone, as returned by `EncoderConfig.for_dense`.
        num_classes: number of classes without the background.
        channels: channels of the pyramid's levels and of the convolutions on them.
        box_head_width: width of the box head's two hidden layers.
        mask_convs: number of 3x3 convolutions in the mask head.
        anchor_scale: side of a square anchor, in strides of its level.
        rpn_samples, roi_samples: number of anchors and of RoIs per image in the losses.
        pre_nms_top_n, pre_nms_top_n_test: maximum number of proposals per level before NMS, in training and at test.
        post_nms_top_n: maximum number of proposals per image after NMS.
        sampling_ratio: RoIAlign samples along a side of a bin; 0 for the adaptive rule.
        score_threshold: minimum probability of a detection.
        detections: maximum number of detections per image.

    Raises:
        ConfigError: a value is out of range.
    """

    kind: ClassVar[str] = "detector"
    has_features: ClassVar[bool] = False
    with_statistics: ClassVar[bool] = True

    encoder: EncoderConfig
    num_classes: int
    channels: int
    box_head_width: int
    mask_convs: int
    anchor_scale: float
    rpn_samples: int
    roi_samples: int
    pre_nms_top_n: int
    pre_nms_top_n_test: int
    post_nms_top_n: int
    sampling_ratio: int
    score_threshold: float
    detections: int

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
        self._check_encoder()

    def _check_encoder(self) -> None:
        """Raises ConfigError where the padded images do not fit the pyramid."""
        h, w = self.encoder.image_size
        patch_size = self.encoder.dense_patch_size
        if self.encoder.patch_size != patch_size:
            raise ConfigError(f"model.patch_size is {self.encoder.patch_size}: the pyramid's strides need {patch_size}")
        if h % 32 or w % 32:
            raise ConfigError(
                f"image_size {h}x{w}: both sides must be multiples of 32, the coarsest stride of the backbone"
            )
        if h > w:
            raise ConfigError(
                f"image_size {h}x{w} is portrait; give the landscape size. Portrait images use it transposed."
            )
        if self.encoder.fixed_image_size and h != w:
            raise ConfigError(f"image_size {h}x{w}: a ViT's positions have one shape, so give a square")

    def make(self, rngs: nnx.Rngs) -> "MaskRCNN":
        """The detector with random initial parameters."""
        return MaskRCNN(self, rngs=rngs)


class MaskRCNN(PyramidBackbone):
    """Images -> losses, or detections."""

    def __init__(self, config: MaskRCNNConfig, *, rngs: nnx.Rngs):
        encoder = config.encoder.for_dense()
        super().__init__(encoder, rngs=rngs)
        self.config = config
        channels, dtype = config.channels, encoder.dtype
        shared = {"sampling_ratio": config.sampling_ratio, "dtype": dtype, "rngs": rngs}
        widths = tuple(encoder.feature_width(tap) for tap in self.taps)
        self.fpn = FPN(widths, channels, dtype=dtype, rngs=rngs)
        self.rpn = rpn.RPN(channels, anchor_scale=config.anchor_scale, dtype=dtype, rngs=rngs)
        self.box_head = roi.BoxHead(channels, config.box_head_width, config.num_classes, **shared)
        self.mask_head = roi.MaskHead(channels, config.num_classes, num_convs=config.mask_convs, **shared)

    def levels(self, images: Float[Array, "b h w c"], key: PRNGKeyArray | None = None) -> Levels:
        """The five levels of normalized images whose sides are multiples of the backbone's coarsest stride."""
        with jax.named_scope("backbone"):
            maps = self.feature_maps(images, key)
        return self.fpn(maps)

    def losses(
        self, images: Float[Array, "b h w c"], batch: Mapping[str, jax.Array], key: PRNGKeyArray
    ) -> tuple[Float32[Array, ""], Losses]:
        """The training loss.

        Args:
            images: normalized images, padded at the bottom and right.
            batch: ground truth. "size" [b, 2], (h, w) of each image without its padding; "boxes" [b, m, 4] in pixels;
                "labels" int32 [b, m], -1 for padding; "masks" [b, m, s, s], each over its own box, 0 or 1.
            key: key of drop path and of the samples.

        Returns:
            (loss, metrics). The metrics hold the five losses, which have equal weights, the box head's accuracy, and
            "count/...", the mean numbers of objects, proposals and positives per image.
        """
        drop_key, rpn_key, roi_key = jax.random.split(key, 3)
        sizes, gt_boxes = batch["size"].astype(jnp.float32), batch["boxes"].astype(jnp.float32)
        labels, gt_valid = jnp.maximum(batch["labels"], 0), batch["labels"] >= 0
        levels = self.levels(images, drop_key)
        metrics, rois, valid = self._rpn_losses(rpn_key, levels, sizes, gt_boxes, gt_valid)

        config = dataclasses.replace(assign.ROI, num_samples=self.config.roi_samples)
        rois, matched, drawn = roi.sample_rois(roi_key, rois, valid, gt_boxes, gt_valid, config)
        predicted = self.box_head(levels[:4], rois)
        metrics["box_class"], metrics["box_box"], accuracy = roi.box_loss(
            *predicted, rois, matched, drawn, gt_boxes, labels
        )
        max_positives = min(config.max_positives, rois.shape[1])  # positives come first
        rois, matched = rois[:, :max_positives], matched[:, :max_positives]
        metrics["mask"] = self._mask_loss(levels, rois, matched, gt_boxes, labels, batch["masks"])

        losses = ("rpn_class", "rpn_box", "box_class", "box_box", "mask")
        total = sum((metrics[name] for name in losses), jnp.float32(0))
        count = jnp.float32(len(images))
        return total, metrics | {
            "count/objects": gt_valid.sum() / count,
            "count/proposals": valid.sum() / count,
            "count/roi_positives": (matched >= 0).sum() / count,
            "box_head/accuracy": accuracy,
        }

    def _rpn_losses(
        self,
        key: PRNGKeyArray,
        levels: Levels,
        sizes: Float32[Array, "b 2"],
        gt_boxes: Float32[Array, "b m 4"],
        gt_valid: Bool[Array, "b m"],
    ) -> tuple[Losses, Float32[Array, "b r 4"], Bool[Array, "b r"]]:
        """(losses of the region proposal network, its proposals, whether each is valid)."""
        config = self.config
        anchors, (logits, deltas) = self.rpn.anchors(levels), self.rpn(levels)
        centers = np.concatenate(
            [anchor_centers((x.shape[1], x.shape[2]), stride) for x, stride in zip(levels, STRIDES, strict=True)]
        )
        assignment = dataclasses.replace(assign.RPN, num_samples=config.rpn_samples)
        rpn_class, rpn_box, positives = rpn.rpn_loss(
            key, anchors, logits, deltas, sizes, jnp.asarray(centers), gt_boxes, gt_valid, assignment
        )
        rois, valid = rpn.propose(anchors, logits, deltas, sizes, config.pre_nms_top_n, config.post_nms_top_n)
        return {"rpn_class": rpn_class, "rpn_box": rpn_box, "count/rpn_positives": positives}, rois, valid

    def _mask_loss(
        self,
        levels: Levels,
        rois: Float32[Array, "b r 4"],
        matched: Int[Array, "b r"],
        gt_boxes: Float32[Array, "b m 4"],
        labels: Int[Array, "b m"],
        gt_masks: Real[Array, "b m s s"],
    ) -> Float32[Array, ""]:
        """The mask head's loss on RoIs matched to ground truth; those with `matched` -1 do not count."""
        positive, matched = matched >= 0, jnp.maximum(matched, 0)
        logits = self.mask_head(levels[:4], rois, jnp.take_along_axis(labels, matched, axis=1))
        own_masks = jnp.take_along_axis(gt_masks, matched[..., None, None], axis=1)
        own_boxes = jnp.take_along_axis(gt_boxes, matched[..., None], axis=1)
        return roi.mask_loss(logits, roi.mask_targets(own_masks, own_boxes, rois), positive)

    def detect(self, images: Float[Array, "b h w c"], sizes: Real[Array, "b 2"]) -> dict[str, jax.Array]:
        """Detections on normalized images.

        Args:
            images: images padded at the bottom and right.
            sizes: (h, w) of each image without its padding.

        Returns:
            The result of `roi.select`, boxes in pixels of the given images, and "masks" float32 [b, k, 28, 28], the
            probability of the object over each box.
        """
        config, sizes = self.config, sizes.astype(jnp.float32)
        levels = self.levels(images)
        anchors, (logits, deltas) = self.rpn.anchors(levels), self.rpn(levels)
        rois, valid = rpn.propose(anchors, logits, deltas, sizes, config.pre_nms_top_n_test, config.post_nms_top_n)
        class_logits, box_deltas = self.box_head(levels[:4], rois)
        detections = roi.select(class_logits, box_deltas, rois, valid, sizes, config.score_threshold, config.detections)
        mask_logits = self.mask_head(levels[:4], detections["boxes"], detections["labels"])
        return detections | {"masks": jax.nn.sigmoid(mask_logits)}
