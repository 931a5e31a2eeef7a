"""Detection and instance segmentation: Mask R-CNN on a pre-trained encoder, on COCO or any dataset in its format."""

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from localmim_jax.detection import sources
from localmim_jax.detection.augment import DetectionEvalTransform, DetectionTransform
from localmim_jax.detection.buckets import make_buckets
from localmim_jax.detection.coco_ap import Categories, CocoAP
from localmim_jax.detection.mask_rcnn import MaskRCNNConfig
from localmim_jax.detection.source import DetectionSource
from localmim_jax.engine.task import Batch, Evaluation, Task
from localmim_jax.errors import DataError
from localmim_jax.files import write_json
from localmim_jax.params import Tree, model_state_of
from localmim_jax.tasks import from_config, inputs
from localmim_jax.tasks.initialize import initializer

RESULTS = "detections.json"
CATEGORIES = "categories.json"  # COCO's id and name of each label, so that the run can be used without its dataset


def model_config(config: ConfigDict) -> MaskRCNNConfig:
    """The detector; its encoder is changed to what dense features need."""
    encoder = from_config.encoder_config(config).for_dense()
    return from_config.fill(MaskRCNNConfig, ConfigDict(config.model.to_dict() | {"encoder": encoder}))


def build(config: ConfigDict, workdir: str) -> Task:
    """The detection task of a config.

    Args:
        config: see `configs/parts`.
        workdir: run directory for the list of unusable images and for results; "" writes neither.

    Raises:
        ConfigError: an impossible model, schedule or augmentation.
        DataError: the dataset is missing or empty, or its classes are not the model's.
    """
    model = model_config(config)
    normalize = normalizer(config)
    train = open_split(config, config.data.split, skip_empty=config.data.skip_empty)
    test = open_split(config, config.eval.split)
    if len(train.category_ids) != model.num_classes:
        raise DataError(
            f"{train.name} has {len(train.category_ids)} classes, and the model {model.num_classes}: set "
            f"--config.model.num_classes={len(train.category_ids)}"
        )
    sources.require_known_classes(train, test)
    sources.require_every_image(test)
    sources.check_evaluated(test)
    num_steps, steps_per_epoch = from_config.num_steps(config, len(train))
    train_input = inputs.TrainInput(
        config, workdir, train, train_transform(config, train), make_buckets(train, tuple(config.image_size))
    )

    def loss(model: Any, batch: Mapping[str, jax.Array], key: jax.Array) -> tuple[jax.Array, dict, Tree]:
        total, metrics = model.losses(normalize(batch), batch, key)
        return total, metrics, model_state_of(model)

    def train_batches(first_step: int) -> Iterator[Batch]:
        if workdir and jax.process_index() == 0:
            write_json(Path(workdir) / CATEGORIES, {"categories": train.categories()})
        return train_input.batches(first_step, num_steps)

    return Task(
        name=config.task,
        make_model=model.make,
        loss=loss,
        train_batches=train_batches,
        batch_size=config.batch_size,
        num_steps=num_steps,
        steps_per_epoch=steps_per_epoch,
        weight_decay_rules=model.encoder.weight_decay["detect"],
        init_from=initializer(config, model),
        data=train_input.record,
        evaluations=(
            evaluation(
                config,
                train,
                test,
                workdir,
                from_config.interval("eval.every_epochs", config.eval.every_epochs, steps_per_epoch),
            ),
        ),
    )


def evaluation(
    config: ConfigDict, train: DetectionSource, test: DetectionSource, workdir: str, every_steps: int
) -> Evaluation:
    """COCO's average precision on a split, with the labels of the training split."""
    normalize = normalizer(config)
    writes = bool(workdir) and jax.process_index() == 0
    return Evaluation(
        name=config.eval.split,
        batches=functools.partial(
            inputs.evaluation_batches,
            inputs.with_levels(inputs.data_config(config), test),
            test,
            config.batch_size,
            eval_transform(config),
            make_buckets(test, tuple(config.image_size)),
        ),
        predict=lambda model, batch: model.detect(normalize(batch), batch["size"]),
        make_metric=lambda: CocoAP(
            test.dataset,
            test.image_id,
            Categories(train.category_ids, train.class_names),
            Path(workdir) / RESULTS if writes else None,
            config.eval.num_pictures,
        ),
        every_steps=every_steps,
        best="box/AP",
    )


def open_split(config: ConfigDict, split: str, skip_empty: bool = False) -> DetectionSource:
    """A split of the config's dataset."""
    data = config.data
    return sources.open_detection(
        data.name,
        split,
        data.data_dir,
        skip_empty=skip_empty,
        image_size=tuple(config.image_size),
        fake_examples=data.fake_examples,
        fake_classes=config.model.num_classes,
        fake_objects=data.fake_objects,
    )


def train_transform(config: ConfigDict, source: DetectionSource) -> DetectionTransform:
    """The training augmentation of a config, with room for as many objects as the source's fullest image has."""
    data = config.data
    return DetectionTransform(
        short_sides=tuple(data.short_sides),
        long_side=data.long_side,
        crop_probability=data.crop_probability,
        crop_sides=tuple(data.crop_sides),
        crop_range=tuple(data.crop_range),
        flip=data.flip,
        max_objects=max(1, source.max_objects),
        mask_size=data.mask_size,
    )


def eval_transform(config: ConfigDict) -> DetectionEvalTransform:
    """The resizing of images in the evaluation of a config."""
    return DetectionEvalTransform(config.eval.short_side, config.eval.long_side)


def normalizer(config: ConfigDict) -> Callable[[Mapping[str, jax.Array]], jax.Array]:
    """({"image" uint8 [b, h, w, 3], "size" [b, 2]}) -> float32, normalized, zero in the padding."""
    normalize = inputs.normalizer(config, channels=3)

    def apply(batch: Mapping[str, jax.Array]) -> jax.Array:
        images, size = batch["image"], batch["size"]
        _, h, w, _ = images.shape
        rows = jnp.arange(h)[None, :, None, None] < size[:, 0, None, None, None]
        columns = jnp.arange(w)[None, None, :, None] < size[:, 1, None, None, None]
        return jnp.where(rows & columns, normalize(images), 0.0)

    return apply
