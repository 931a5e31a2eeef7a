"""Semantic segmentation: UperNet on a pre-trained encoder, on ADE20K or any images with index masks."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from localmim_jax.data import pipeline
from localmim_jax.data.sources import require_labels, require_same_classes
from localmim_jax.engine.task import Batch, Evaluation, Task
from localmim_jax.errors import ConfigError
from localmim_jax.models.vit import ViTConfig
from localmim_jax.params import Tree, model_state_of
from localmim_jax.segmentation import batches, sliding, sources
from localmim_jax.segmentation.augment import Distortion, SegmentationEvalTransform, SegmentationTransform
from localmim_jax.segmentation.miou import MeanIoU
from localmim_jax.segmentation.pixel_loss import pixel_cross_entropy
from localmim_jax.segmentation.sources import MaskSource
from localmim_jax.segmentation.upernet import Segmenter, SegmenterConfig
from localmim_jax.tasks import decay, from_config, inputs
from localmim_jax.tasks.initialize import initializer
from localmim_jax.tasks.layers import layer_of

RESULTS, MASKS = "segmentation.json", "masks"  # classes and confusion, and predictions, in the run directory
MODES = ("slide", "whole")


def build(config: ConfigDict, workdir: str) -> Task:
    """The segmentation task of a config.

    Args:
        config: see `configs/parts`.
        workdir: where unusable images are listed and predictions are written; "" for neither.

    Raises:
        ConfigError: an impossible model, schedule, augmentation or evaluation.
        DataError: a missing or empty dataset, one with other classes than the model, or one whose masks do not fit.
    """
    model = from_config.segmenter_config(config)
    check_settings(config, model)
    normalize = inputs.normalizer(config)
    data = inputs.data_config(config)
    transform = train_transform(config)
    train, test = (open_split(config, section.split) for section in (config.data, config.eval))
    for source in (train, test):
        require_labels(source, model.num_classes)
    require_same_classes(train, test)
    for source in (train, test):
        sources.check_examples(source)
    num_steps, steps_per_epoch = from_config.num_steps(config, len(train))
    auxiliary_weight = config.model.auxiliary_weight

    def loss(model: Any, batch: Mapping[str, jax.Array], key: jax.Array) -> tuple[jax.Array, dict, Tree]:
        logits, auxiliary = model(normalize(batch["image"]), key)
        total, accuracy = pixel_cross_entropy(logits, batch["mask"])
        metrics = {"decode": total, "pixel_accuracy": accuracy}
        if auxiliary is not None:
            metrics["auxiliary"], _ = pixel_cross_entropy(auxiliary, batch["mask"])
            total = total + auxiliary_weight * metrics["auxiliary"]
        return total, metrics, model_state_of(model)

    def train_batches(first_step: int) -> Iterator[Batch]:
        return pipeline.train_batches(
            data,
            train,
            first_step,
            num_steps,
            jax.process_index(),
            jax.process_count(),
            transform=transform,
            bad_list=Path(workdir) / inputs.BAD_EXAMPLES if workdir else None,
        )

    is_vit = isinstance(model.encoder, ViTConfig)
    return Task(
        name=config.task,
        make_model=lambda rngs: Segmenter(model, rngs=rngs),
        loss=loss,
        train_batches=train_batches,
        batch_size=config.batch_size,
        num_steps=num_steps,
        steps_per_epoch=steps_per_epoch,
        weight_decay_rules=decay.SEGMENT_VIT if is_vit else decay.SEGMENT_SWIN,
        layer_of=layer_of(model.encoder),
        init_from=initializer(config, model),
        evaluations=(evaluation(config, test, workdir),),
    )


def evaluation(config: ConfigDict, test: MaskSource, workdir: str) -> Evaluation:
    """Mean IoU of a split at its images' original sizes."""
    transform = eval_transform(config)
    groups = functools.cache(lambda: batches.make_groups(test, transform))
    writes = bool(workdir) and jax.process_index() == 0
    scores = score_function(config)

    def read_batches() -> Iterator[Batch]:
        return batches.eval_batches(
            inputs.data_config(config),
            test,
            transform,
            groups(),
            config.eval.batch_size,
            jax.process_index(),
            jax.process_count(),
        )

    def predict(model: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
        _, height, width = batch["mask"].shape
        return sliding.labels_at(scores(model, batch), batch["original"], (height, width))

    return Evaluation(
        name=config.eval.split,
        batches=read_batches,
        predict=predict,
        make_metric=lambda: MeanIoU(
            test.class_names,
            config.eval.num_pictures,
            Path(workdir) / RESULTS if writes else None,
            Path(workdir) / MASKS if writes and config.eval.write_masks else None,
            test.key_of,
            test.stored,
        ),
        every_steps=config.eval.every_steps,
        best="mIoU",
    )


def score_function(config: ConfigDict) -> Callable[[Any, Mapping[str, jax.Array]], jax.Array]:
    """(model, {"image", "image_1", ...}, see `SegmentationEvalTransform`) -> class scores at the size of "image"."""
    normalize = inputs.normalizer(config)
    window, stride, slides = config.image_size[0], config.eval.stride, config.eval.mode == "slide"
    flip, count = config.eval.flip, len(config.eval.ratios)

    def scores(model: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
        def of_scale(images: jax.Array) -> jax.Array:
            if slides:
                return sliding.sliding_window(lambda x: model(x)[0], images, window, stride)
            return sliding.whole_image(lambda x: model(x)[0], images)

        scales = [normalize(batch[f"image_{i}" if i else "image"]) for i in range(count)]
        return sliding.average(of_scale, scales, flip)

    return scores


def open_split(config: ConfigDict, split: str) -> MaskSource:
    """A split of the config's dataset."""
    data = config.data
    return sources.open_masks(
        data.name,
        split,
        data.data_dir,
        zero_ignored=data.zero_ignored,
        num_classes=config.model.num_classes,
        image_size=tuple(config.image_size),
        fake_examples=data.fake_examples,
    )


def train_transform(config: ConfigDict) -> SegmentationTransform:
    """Augmentation as the config says.

    Raises:
        ConfigError: sizes that are no sizes, or strengths out of their range.
    """
    data = config.data
    scale, ratios = _checked_scale("data.scale", data.scale), tuple(data.ratio_range)
    if len(ratios) != 2 or not 0 < ratios[0] <= ratios[1]:
        raise ConfigError(f"data.ratio_range is {ratios}; (least, most) factor above 0 is needed, as (0.5, 2.0)")
    strengths = {name: data[name] for name in ("brightness", "contrast", "saturation", "hue")}
    for name, value in strengths.items():
        most = 1 if name in ("contrast", "saturation") else float("inf")
        if not 0 <= value <= most:
            limit = "not be negative" if most > 1 else "be from 0 to 1"
            raise ConfigError(f"data.{name} is {value}; it must {limit}")
    if not 0 < data.max_class_fraction <= 1:
        raise ConfigError(f"data.max_class_fraction is {data.max_class_fraction}; it must be above 0 and at most 1")
    # What normalization takes to zero, as far as whole numbers can.
    red, green, blue = (round(255 * value) for value in data.mean)
    return SegmentationTransform(
        image_size=tuple(config.image_size),
        scale=scale,
        ratio_range=ratios,
        max_class_fraction=data.max_class_fraction,
        flip=data.flip,
        distortion=Distortion(**strengths),
        fill=(red, green, blue),
    )


def _checked_scale(key: str, value: Sequence[int]) -> tuple[int, int]:
    """(long, short) side in pixels, as the config has it under `key`; raises ConfigError where they are no sides."""
    if len(value) != 2 or min(value) < 1:
        raise ConfigError(f"{key} is {tuple(value)}; (long, short) side in pixels is needed, as (2048, 512)")
    return value[0], value[1]


def eval_transform(config: ConfigDict) -> SegmentationEvalTransform:
    """How images are resized to be evaluated."""
    return SegmentationEvalTransform(tuple(config.eval.scale), tuple(config.eval.ratios), config.eval.multiple)


def check_settings(config: ConfigDict, model: SegmenterConfig) -> None:
    """Raises ConfigError for an evaluation or an image size that cannot be."""
    section, (h, w) = config.eval, tuple(config.image_size)
    if config.data.channels != 3:
        raise ConfigError(f"data.channels is {config.data.channels}; segmentation reads color images, 3 channels")
    if h != w:
        raise ConfigError(f"image_size {h}x{w}: crops and windows are squares")
    if section.mode not in MODES:
        raise ConfigError(f"eval.mode is {section.mode!r}; it must be one of {', '.join(MODES)}")
    if isinstance(model.encoder, ViTConfig) and section.mode == "whole":
        raise ConfigError("eval.mode is 'whole', and a ViT's positions have one size: set eval.mode=slide")
    if not 1 <= section.stride <= h:
        raise ConfigError(f"eval.stride is {section.stride}; it must be from 1 to the window, image_size {h}")
    _checked_scale("eval.scale", section.scale)
    ratios = tuple(section.ratios)
    if not ratios or min(ratios) <= 0:
        raise ConfigError(f"eval.ratios is {ratios}; factors above 0 are needed, at least one, as (1.0,)")
    if section.multiple < 1:
        raise ConfigError(f"eval.multiple is {section.multiple}; it must be at least 1")
    if section.batch_size < 1:
        raise ConfigError(f"eval.batch_size is {section.batch_size}; it must be at least 1")
    if config.model.auxiliary_weight < 0:
        raise ConfigError(f"model.auxiliary_weight is {config.model.auxiliary_weight}; it must not be negative")
