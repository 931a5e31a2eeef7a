"""Semantic segmentation: UperNet on a pre-trained encoder, on ADE20K or any images with index masks."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from localmim_jax.data.source import require_labels, require_same_classes
from localmim_jax.engine.task import Evaluation, Task
from localmim_jax.params import Tree, model_state_of
from localmim_jax.segmentation import sliding, sources
from localmim_jax.segmentation.augment import Distortion, SegmentationEvalTransform, SegmentationTransform
from localmim_jax.segmentation.check import check_evaluated, check_examples
from localmim_jax.segmentation.evaluation import EvaluationConfig
from localmim_jax.segmentation.groups import make_groups
from localmim_jax.segmentation.miou import MeanIoU
from localmim_jax.segmentation.pixel_loss import pixel_cross_entropy
from localmim_jax.segmentation.source import MaskSource
from localmim_jax.segmentation.upernet import SegmenterConfig
from localmim_jax.tasks import from_config, inputs
from localmim_jax.tasks.initialize import initializer

RESULTS, MASKS = "segmentation.json", "masks"  # in the run directory: classes and confusion matrix; predictions


def model_config(config: ConfigDict) -> SegmenterConfig:
    """The segmentation model; its encoder is changed to what dense features need."""
    encoder = from_config.encoder_config(config).for_dense(config.model.get("relative_and_scale", False))
    values = {name: tuple(config.model[name] or ()) or None for name in ("taps", "pool_scales")}
    return from_config.fill(SegmenterConfig, ConfigDict(config.model.to_dict() | values | {"encoder": encoder}))


def build(config: ConfigDict, workdir: str) -> Task:
    """The segmentation task of a config.

    Args:
        config: see `configs/parts`.
        workdir: run directory for the list of unusable images and for predictions; "" writes neither.

    Raises:
        ConfigError: an impossible model, schedule, augmentation or evaluation.
        DataError: the dataset is missing or empty, its classes are not the model's, or its masks do not fit.
    """
    model = model_config(config)
    settings = evaluation_config(config, model)
    normalize = inputs.normalizer(config, channels=3)
    transform, whole_images = train_transform(config), eval_transform(config)
    train, test = (open_split(config, section.split) for section in (config.data, config.eval))
    for source in (train, test):
        require_labels(source, model.num_classes)
    require_same_classes(train, test)
    check_examples(train)
    check_evaluated(test)
    train_input = inputs.TrainInput(config, workdir, train, transform)
    num_steps, steps_per_epoch = from_config.num_steps(config, len(train))

    def loss(model: Any, batch: Mapping[str, jax.Array], key: jax.Array) -> tuple[jax.Array, dict, Tree]:
        logits, auxiliary = model(normalize(batch["image"]), key)
        total, accuracy = pixel_cross_entropy(logits, batch["mask"])
        metrics = {"decode": total, "pixel_accuracy": accuracy}
        if auxiliary is not None:
            metrics["auxiliary"], _ = pixel_cross_entropy(auxiliary, batch["mask"])
            total = total + model.config.auxiliary_weight * metrics["auxiliary"]
        return total, metrics, model_state_of(model)

    return Task(
        name=config.task,
        make_model=model.make,
        loss=loss,
        train_batches=functools.partial(train_input.batches, num_steps=num_steps),
        batch_size=config.batch_size,
        num_steps=num_steps,
        steps_per_epoch=steps_per_epoch,
        weight_decay_rules=model.encoder.weight_decay["segment"],
        layer_of=model.encoder.layer_of,
        init_from=initializer(config, model),
        data=train_input.record,
        evaluations=(evaluation(config, settings, whole_images, test, workdir),),
    )


def evaluation(
    config: ConfigDict,
    settings: EvaluationConfig,
    transform: SegmentationEvalTransform,
    test: MaskSource,
    workdir: str,
) -> Evaluation:
    """Mean IoU on a split, at the original size of each image."""
    data = inputs.with_levels(inputs.data_config(config), test)
    groups = functools.cache(lambda: make_groups(test, transform))  # reads every image's header, once
    writes = bool(workdir) and jax.process_index() == 0
    scores = score_function(config, settings)

    def predict(model: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
        _, height, width = batch["mask"].shape
        return sliding.labels_at(scores(model, batch), batch["original"], (height, width))

    return Evaluation(
        name=config.eval.split,
        batches=lambda: inputs.evaluation_batches(data, test, settings.batch_size, transform, groups()),
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


def score_function(
    config: ConfigDict, settings: EvaluationConfig
) -> Callable[[Any, Mapping[str, jax.Array]], jax.Array]:
    """(model, {"image", "image_1", ...} of `SegmentationEvalTransform`) -> class scores at the size of "image"."""
    normalize, count = inputs.normalizer(config, channels=3), len(config.eval.ratios)

    def scores(model: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
        scales = [normalize(batch[f"image_{i}" if i else "image"]) for i in range(count)]
        return settings.scores(lambda images: model(images)[0], scales)

    return scores


def open_split(config: ConfigDict, split: str) -> MaskSource:
    """A split of the config's dataset."""
    data = config.data
    return sources.open_masks(
        data.name,
        split,
        data.data_dir,
        zero_ignored=data.zero_ignored,
        mask_values=mask_values(config),
        num_classes=config.model.num_classes,
        image_size=tuple(config.image_size),
        fake_examples=data.fake_examples,
    )


def mask_values(config: ConfigDict) -> tuple[int, ...] | None:
    """`data.mask_values`, which configs of older runs lack."""
    values = config.data.get("mask_values")
    return None if values is None else tuple(values)


def train_transform(config: ConfigDict) -> SegmentationTransform:
    """The training augmentation of a config."""
    data = config.data
    # The color that normalization takes to zero, rounded to whole numbers.
    red, green, blue = (round(255 * value) for value in data.mean)
    return SegmentationTransform(
        image_size=tuple(config.image_size),
        scale=tuple(data.scale),
        ratio_range=tuple(data.ratio_range),
        max_class_fraction=data.max_class_fraction,
        flip=data.flip,
        distortion=Distortion(data.brightness, data.contrast, data.saturation, data.hue),
        fill=(red, green, blue),
    )


def eval_transform(config: ConfigDict) -> SegmentationEvalTransform:
    """The resizing of images in the evaluation of a config."""
    return SegmentationEvalTransform(tuple(config.eval.scale), tuple(config.eval.ratios), config.eval.multiple)


def evaluation_config(config: ConfigDict, model: SegmenterConfig) -> EvaluationConfig:
    """The evaluation settings of a config."""
    section = config.eval
    return EvaluationConfig(
        window=tuple(config.image_size),
        mode=section.mode,
        stride=section.stride,
        flip=section.flip,
        batch_size=section.batch_size,
        fixed_size=model.encoder.fixed_image_size,
    )
