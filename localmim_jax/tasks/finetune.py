"""Fine-tuning: a pre-trained encoder with a classification head, all or its last blocks trained on labeled images."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from localmim_jax.data.augment import TrainTransform
from localmim_jax.data.decode import DecodeError
from localmim_jax.data.labeled_part import LabeledPart
from localmim_jax.data.own import Given
from localmim_jax.data.randaugment import RandAugmentTransform
from localmim_jax.data.read import Transform
from localmim_jax.data.source import Source, require_labels, require_same_classes
from localmim_jax.engine.task import Evaluation, Task
from localmim_jax.errors import DataError
from localmim_jax.evals.classification import Accuracy, ranks_and_losses
from localmim_jax.models.classifier import ClassifierConfig
from localmim_jax.ops.erasing import ErasingConfig, random_erasing
from localmim_jax.ops.mixup import MixConfig, mix, soft_cross_entropy
from localmim_jax.params import Tree, model_state_of
from localmim_jax.tasks import from_config, inputs
from localmim_jax.tasks.initialize import initializer
from localmim_jax.tasks.layers import last_blocks

_LABELS_CHECKED = 512  # examples of each split whose label is looked at before the first step


def model_config(config: ConfigDict) -> ClassifierConfig:
    """The classifier of a config."""
    return from_config.classifier_config(config)


def build(config: ConfigDict, workdir: str, given: Given | None = None) -> Task:
    """The fine-tuning task of a config.

    Args:
        config: see `configs/parts`.
        workdir: where unreadable images are listed.
        given: a Python program's dataset and transform.

    Raises:
        ConfigError: an impossible model, schedule or augmentation.
        DataError: a missing, empty or unlabeled dataset, or one with other classes than the model.
    """
    model = model_config(config)
    augment = config.augment
    mixing = from_config.fill(MixConfig, augment)
    erasing = ErasingConfig(probability=augment.erasing)
    normalize = inputs.normalizer(config)
    transform = train_transform(config)
    train = inputs.TrainInput(config, workdir, labeled_part(config, given), transform=transform, given=given)
    test = inputs.open_split(train.config, split=config.eval.split, given=given)
    check_labels(train.source, test, model.num_classes)
    inputs.check_evaluated(test, train.config)
    evaluated = inputs.with_levels(train.config, test)
    num_steps, steps_per_epoch = from_config.num_steps(config, len(train.source))

    def loss(model: Any, batch: Mapping[str, jax.Array], key: jax.Array) -> tuple[jax.Array, dict, Tree]:
        erase_key, mix_key, model_key = jax.random.split(key, 3)
        images = random_erasing(erase_key, normalize(batch["image"]), erasing)
        images, targets = mix(mix_key, images, batch["label"], model.config.num_classes, mixing)
        return soft_cross_entropy(model(images, model_key), targets), {}, model_state_of(model)

    evaluation = Evaluation(
        name=config.eval.split.split("[")[0],
        batches=functools.partial(inputs.center_crops, evaluated, test, config.batch_size, config.eval.resize),
        predict=lambda model, batch: ranks_and_losses(model(normalize(batch["image"])), batch["label"]),
        make_metric=functools.partial(Accuracy, model.num_classes),
        every_steps=from_config.interval("eval.every_epochs", config.eval.every_epochs, steps_per_epoch),
        best="top1",
    )
    return Task(
        name=config.task,
        make_model=model.make,
        loss=loss,
        train_batches=functools.partial(train.batches, num_steps=num_steps),
        batch_size=config.batch_size,
        num_steps=num_steps,
        steps_per_epoch=steps_per_epoch,
        weight_decay_rules=model.encoder.weight_decay["finetune"],
        layer_of=model.encoder.layer_of,
        trainable=last_blocks(model.encoder, config.model.trained_blocks),
        init_from=initializer(config, model),
        data=train.record,
        evaluations=(evaluation,),
    )


def labeled_part(config: ConfigDict, given: Given | None = None) -> Source | None:
    """What data.label_fraction leaves of the training split; None for all of it, as in runs of older versions."""
    fraction = config.data.get("label_fraction", 1.0)
    if fraction == 1:
        return None
    return LabeledPart(inputs.open_split(inputs.data_config(config), given=given), fraction)


def train_transform(config: ConfigDict) -> Transform | None:
    """Crop, flip and RandAugment; None where only the crop and the flip are wanted."""
    if not config.augment.randaugment:
        return None
    crop = TrainTransform.of(inputs.data_config(config))
    return RandAugmentTransform.of(crop, config.augment.randaugment, tuple(config.data.mean))


def check_labels(train: Source, test: Source, num_classes: int) -> None:
    """Raises DataError unless both splits have the model's classes, and labels in their range as far as is looked."""
    for source in (train, test):
        require_labels(source, num_classes)
    require_same_classes(train, test)
    for source in (train, test):
        picked = np.unique(np.linspace(0, len(source) - 1, min(_LABELS_CHECKED, len(source))).astype(int))
        for index in map(int, picked):
            try:
                label = source[index]["label"]
            except DecodeError:
                continue  # reading the batches decides what becomes of it
            if not 0 <= label < num_classes:
                raise DataError(
                    f"{source.name_of(index)} has label {label}: labels of {num_classes} classes go from 0 to "
                    f"{num_classes - 1}; choose a labeled split"
                )
