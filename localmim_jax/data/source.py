"""What a dataset is: random access by index, so that a batch can be a pure function of seed and step."""

import abc
import functools
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from absl import logging

from localmim_jax.data.decode import DecodeError, StoredImage, image_size
from localmim_jax.data.fingerprint import digest
from localmim_jax.errors import DataError

AnySource = TypeVar("AnySource", bound="Source")

_SAMPLED = 16  # images whose header is read for a description


class Source(abc.ABC):
    """A dataset of images, each with an index from 0 to len - 1. Picklable, and safe to read from several threads.

    Attributes:
        name: as in the config, with the split, for messages.
        class_names: names of the labels, () where there are none.
        num_classes: 0 without labels.
        passthrough: images are arrays of their final size and are not cropped (the fake source).
        mixed: arrays and other images may be in one dataset.
        notes: what a user should know before training on it, such as files that are not read; a line each.
    """

    name: str
    class_names: tuple[str, ...] = ()
    num_classes: int = 0
    passthrough: bool = False
    mixed: bool = False
    notes: tuple[str, ...] = ()

    @property
    def labeled(self) -> bool:
        return self.num_classes > 0

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def __getitem__(self, index: int) -> dict[str, Any]:
        """{"image": a `decode.StoredImage`, and where labeled "label": int}.

        Raises:
            DecodeError: this one example cannot be read.
        """

    def image(self, index: int) -> StoredImage:
        """The example's image alone. Raises DecodeError."""
        return self[index]["image"]

    @abc.abstractmethod
    def key_of(self, index: int) -> str:
        """The example's name within the dataset."""

    def all_labels(self) -> np.ndarray:
        """The label of every example, int64 [n]. Here every example is read, which takes long for a large dataset.

        Raises:
            DataError: there are no labels.
            DecodeError: an example cannot be read.
        """
        if not self.labeled:
            raise DataError(f"{self.name} has no labels; they are needed to take a part of each class")
        return np.array([self[index]["label"] for index in range(len(self))], np.int64)

    def name_of(self, index: int) -> str:
        """The example's name in messages: a file's path, or the dataset and the key."""
        return f"{self.name}/{self.key_of(index)}"

    def fingerprint(self) -> str:
        """A digest that is another one where examples were added, removed, renamed or replaced; a resumed run compares.

        Here it is of the number of examples, the classes, and the names of up to 1,000 examples. Sources of files use
        names and sizes, prepared datasets their version.
        """
        picked = np.linspace(0, len(self) - 1, min(1000, len(self))).astype(int)
        return digest(len(self), self.class_names, [self.key_of(int(index)) for index in picked])

    def describe(self) -> str:
        """One line: how many images, their classes and sizes, and a few names."""
        picked = sorted({int(i) for i in np.linspace(0, len(self) - 1, min(_SAMPLED, len(self)))})
        sizes = [size for size in map(self._size, picked) if size]
        text = f"{self.name}: {len(self):,} images"
        if self.labeled:
            text += f" of {self.num_classes:,} classes"
        if sizes:
            (low_height, low_width), (high_height, high_width) = np.min(sizes, axis=0), np.max(sizes, axis=0)
            text += f", {low_height} x {low_width}"
            if (low_height, low_width) != (high_height, high_width):
                text += f" to {high_height} x {high_width}"
            text += f" pixels ({len(sizes)} sampled)"
        return f"{text}, such as {', '.join(self.name_of(i) for i in picked[:: max(1, len(picked) // 3)][:3])}"

    def _size(self, index: int) -> tuple[int, int] | None:
        try:
            return image_size(self[index]["image"])
        except DecodeError:
            return None


def announced(source: AnySource) -> AnySource:
    """The source, after its notes have gone to the log, each once in a process."""
    for note in source.notes:
        _log_once(note)
    return source


@functools.cache
def _log_once(note: str) -> None:
    logging.warning("%s", note)


def require_labels(source: Source, num_classes: int) -> None:
    """Raises `DataError` unless the source has labels of exactly this many classes."""
    if not source.labeled:
        raise DataError(f"{source.name} has no labels; this task needs one folder, or one label, per class")
    if source.num_classes != num_classes:
        raise DataError(
            f"{source.name} has {source.num_classes} classes, and the model {num_classes}: set "
            f"--config.model.num_classes={source.num_classes}, or check data.name and data.split"
        )


def require_same_classes(train: Source, other: Source) -> None:
    """Raises `DataError` unless both sources number the same classes in the same way, naming those that differ."""
    if (train.num_classes, train.class_names) == (other.num_classes, other.class_names):
        return
    extra = _only_in(other.class_names, train.class_names)
    missing = _only_in(train.class_names, other.class_names)
    difference = "; ".join(
        [f"only in {source.name}: {names}" for source, names in ((other, extra), (train, missing)) if names]
        or [f"{train.num_classes} classes in {train.name}, {other.num_classes} in {other.name}, in another order"]
    )
    raise DataError(f"{train.name} and {other.name} do not have the same classes ({difference})")


def _only_in(names: Sequence[str], others: Sequence[str], shown: int = 5) -> str:
    """The first few of `names` that are not among `others`."""
    only = [name for name in names if name not in set(others)]
    return ", ".join(only[:shown]) + (f" and {len(only) - shown} more" if len(only) > shown else "")
