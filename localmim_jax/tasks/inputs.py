"""The input of every task: sources opened once, this host's part of each batch, pixels normalized on the device."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from localmim_jax.data import bit_depth, check, pipeline
from localmim_jax.data.augment import EvalTransform
from localmim_jax.data.config import DataConfig
from localmim_jax.data.levels import Levels, parse
from localmim_jax.data.own import Given
from localmim_jax.data.plan import Group, one_group
from localmim_jax.data.read import Transform
from localmim_jax.data.shard import Shard
from localmim_jax.data.source import Source, require_same_classes
from localmim_jax.data.sources import open_source
from localmim_jax.engine.task import Batch
from localmim_jax.errors import ConfigError, DataError

BAD_EXAMPLES = "bad_examples.txt"


def data_config(config: ConfigDict) -> DataConfig:
    """The input settings of a config."""
    return DataConfig(
        image_size=tuple(config.image_size),
        batch_size=config.batch_size,
        seed=config.seed,
        **{
            field.name: config.data[field.name] for field in dataclasses.fields(DataConfig) if field.name in config.data
        },
    )


def open_split(data: DataConfig, name: str = "", split: str = "", given: Given | None = None) -> Source:
    """The source a config trains on, or another one with the same storage and image format; `given` where it has it."""
    if given is not None and given.name and (name or data.name) == given.name:
        return given.split(split or data.split)
    return open_source(
        name or data.name,
        split or data.split,
        data.data_dir,
        image_size=data.image_size,
        channels=data.channels,
        fake_examples=data.fake_examples,
        fake_classes=data.fake_classes,
        val_fraction=data.val_fraction if not name or same_dataset(name, data.name) else 0.0,
    )


def same_dataset(name: str, other: str) -> bool:
    """Whether two values of data.name are one dataset: also one folder in two ways of writing."""
    paths = [Path(text.removeprefix("folder:")).expanduser() for text in (name, other) if text.startswith("folder:")]
    return name == other or (len(paths) == 2 and os.path.realpath(paths[0]) == os.path.realpath(paths[1]))


def eval_resize(config: ConfigDict) -> int:
    """The short side in pixels to which a run resizes images when it evaluates; 0: 256 for every 224."""
    return config.eval.get("knn", config.eval).get("resize", 0)


def check_evaluated(source: Source, data: DataConfig, max_examples: int = 0) -> None:
    """Raises DataError where an example cannot be evaluated, of those that `center_crops` reads.

    Arrays of their final size can. They are read by as many threads as batches are (`data.num_threads`).
    """
    if not source.passthrough:
        (group,) = one_group(len(source), max_examples)
        check.check_evaluated(source, members=group.members, threads=data.num_threads or None)


def with_levels(data: DataConfig, source: Source, key: str = "data.high_bit_depth") -> DataConfig:
    """The settings with the values that `data.high_bit_depth` gives on a source; the log has them, and warnings.

    A run's own values are kept on another dataset, which a model has to see as it saw its training images. Where they
    make its images dark or cut their values off, the warning names the dataset and the key that changes them.

    Raises:
        DataError: the source's images differ in type.
    """
    measured = bit_depth.measure(data.high_bit_depth, source, key)
    for note in measured.notes:
        logging.info("%s", note)
    for warning in measured.warnings:
        logging.warning("%s", warning)
    return dataclasses.replace(data, high_bit_depth=measured.rule)


def levels(config: ConfigDict) -> Levels | None:
    """The values of high-bit-depth images that a run's config makes black and white; None for the range of the type."""
    return parse(config.data.get("high_bit_depth", ""))


def normalizer(config: ConfigDict, channels: int | None = None) -> Callable[[jax.Array], jax.Array]:
    """(uint8 [b, h, w, c]) -> float32, (pixel / 255 - mean) / std per channel. Runs on the device.

    `channels` is the number of channels that the task reads; None for data.channels.

    Raises:
        ConfigError: data.channels is another number, or mean and deviation do not fit it.
    """
    data = config.data
    if channels is not None and data.channels != channels:
        raise ConfigError(
            f"data.channels is {data.channels}; the task {config.task} reads images of {channels} channels"
        )
    for key in ("mean", "std"):
        if len(data[key]) != data.channels:
            raise ConfigError(
                f"data.{key} {tuple(data[key])} does not fit data.channels={data.channels}: give one value per channel"
            )
    if min(data.std) <= 0:
        raise ConfigError(f"data.std is {tuple(data.std)}: every deviation must be above 0")
    mean, std = (np.asarray(data[key], np.float32).reshape(1, 1, 1, -1) for key in ("mean", "std"))
    return lambda images: (images.astype(jnp.float32) / 255 - mean) / std


def shard() -> Shard:
    """This host's part of each batch."""
    return Shard(jax.process_index(), jax.process_count())


class TrainInput:
    """The training set of a run: its source, and this host's part of its batches.

    Args:
        config: see `configs/parts`. A rule in `data.high_bit_depth` is replaced by the values measured on the source,
            so that they are recorded with the run, and evaluations and commands use the same.
        workdir: where undecodable images are listed; "" lists them nowhere.
        source: what is read; None: the source of classes and images that the config names.
        transform, groups: see `data.pipeline.train_batches`.
        given: a Python program's dataset and transform, which comes before `transform`.
    """

    def __init__(
        self,
        config: ConfigDict,
        workdir: str = "",
        source: Source | None = None,
        transform: Transform | None = None,
        groups: Sequence[Group] | None = None,
        given: Given | None = None,
    ):
        self.config, self.given = data_config(config), given
        self.source = open_split(self.config, given=given) if source is None else source
        self.config = with_levels(self.config, self.source)
        if "high_bit_depth" in config.data:
            config.data.high_bit_depth = self.config.high_bit_depth
        own = given.transform if given is not None else None
        self._transform, self._groups = own or transform, groups
        self._missing = "" if own else config.data.get("transform")
        self._bad_list = Path(workdir) / BAD_EXAMPLES if workdir else None

    def batches(self, first_step: int, num_steps: int) -> Iterator[Batch]:
        """Batches of steps `first_step` to `num_steps` - 1. Raises ConfigError: the run's own transform is missing."""
        if self._missing:
            raise ConfigError(
                f"data.transform is {self._missing!r}, a function of a Python program: train and resume with "
                "localmim_jax.train(..., transform=...)"
            )
        return pipeline.train_batches(
            self.config,
            self.source,
            first_step,
            num_steps,
            shard(),
            transform=self._transform,
            groups=self._groups,
            bad_list=self._bad_list,
        )

    def record(self) -> dict[str, Any]:
        """What a resumed run must find again, see `engine.data_record`."""
        source = self.source
        return {"name": source.name, "examples": len(source), "fingerprint": source.fingerprint()}

    def examples(self, count: int, resize: int = 0, batch_size: int = 0) -> Iterator[Batch]:
        """`count` examples spread evenly over the source, centered instead of cropped at random.

        They come in one batch, or in batches of `batch_size`, which every host has an equal part of. Undecodable ones,
        which training replaces, are padding here.
        """
        size = batch_size or -(-count // jax.process_count()) * jax.process_count()
        return center_crops(self.config, self.source, size, resize, max_examples=count, skip_bad=True)


def evaluation_batches(
    data: DataConfig,
    source: Source,
    batch_size: int,
    transform: Transform | None = None,
    groups: Sequence[Group] | None = None,
    skip_bad: bool = False,
) -> Iterator[Batch]:
    """This host's part of every example once; see `data.pipeline.eval_batches`."""
    return pipeline.eval_batches(
        data, source, batch_size, shard(), transform=transform, groups=groups, skip_bad=skip_bad
    )


def center_crops(
    data: DataConfig,
    source: Source,
    batch_size: int,
    resize: int = 0,
    max_examples: int = 0,
    skip_bad: bool = False,
) -> Iterator[Batch]:
    """This host's part of every example once, or of `max_examples` evenly spaced ones, resized and center-cropped.

    Args:
        data: image size and channels.
        source: what is read; images that have their final size stay as they are.
        batch_size: global.
        resize: see `EvalTransform`.
        max_examples: 0 for all.
        skip_bad: an undecodable image becomes padding instead of an error.
    """
    transform = None if source.passthrough else EvalTransform.of(data, resize)
    return evaluation_batches(data, source, batch_size, transform, one_group(len(source), max_examples), skip_bad)


class LabeledSplits:
    """Batches of a labeled training split and then a test split, told apart by "is_train": what k-NN reads.

    Args:
        config: image size, batch size and storage.
        knn: a section with name, train_split, test_split, resize and max_train; and high_bit_depth, a rule for this
            dataset that is measured on its training split, where it is not the run's.
        key: of that rule, for messages.
        given: a Python program's dataset, which the section may name.

    Raises:
        DataError: a split is missing, has no labels, or the two do not have the same classes.
    """

    def __init__(
        self, config: ConfigDict, knn: ConfigDict, given: Given | None = None, key: str = "eval.knn.high_bit_depth"
    ):
        self._data = data_config(config)
        if knn.get("high_bit_depth") is not None:
            self._data = dataclasses.replace(self._data, high_bit_depth=knn.high_bit_depth)
        self._knn = knn
        self._sources = [open_split(self._data, knn.name, knn[key], given) for key in ("train_split", "test_split")]
        for source in self._sources:
            if not source.labeled:
                raise DataError(f"eval.knn: {source.name} has no labels; name a labeled source, or turn eval.knn off")
        require_same_classes(*self._sources)
        for source, limit in zip(self._sources, (knn.max_train, 0), strict=True):
            check_evaluated(source, self._data, limit)
        for source in self._sources:
            self._data = with_levels(self._data, source, key)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of every label; its number where the dataset has no names."""
        source = self._sources[0]
        return tuple(source.class_names) or tuple(str(label) for label in range(source.num_classes))

    def __call__(self) -> Iterator[Batch]:
        batch_size = self._data.batch_size
        for source, is_train in zip(self._sources, (True, False), strict=True):
            limit = self._knn.max_train if is_train else 0
            for batch in center_crops(self._data, source, batch_size, self._knn.resize, limit):
                yield {**batch, "is_train": np.full(len(batch["valid"]), is_train)}
