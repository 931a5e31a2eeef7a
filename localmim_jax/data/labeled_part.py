"""A part of a labeled dataset with the same fraction of each class, for training with few labels."""

from typing import Any

import numpy as np

from localmim_jax.data.fingerprint import digest
from localmim_jax.data.holdout import uniform
from localmim_jax.data.source import Source
from localmim_jax.errors import ConfigError

_SALT = "labels/"  # data.val_fraction takes the smallest hashes of the names themselves, and those are gone


class LabeledPart(Source):
    """The examples of each class whose names have the smallest hashes, in the order of the source.

    So the part is the same on every machine and for every seed, and a smaller part lies within a larger one.

    Args:
        source: labeled.
        fraction: of each class, above 0 and at most 1; a class keeps at least one example.

    Attributes:
        indices: int64 [n], increasing, of the part's examples in the source.

    Raises:
        ConfigError: no such fraction.
        DataError: the source has no labels.
    """

    def __init__(self, source: Source, fraction: float):
        if not 0 < fraction <= 1:
            raise ConfigError(f"data.label_fraction is {fraction}; it must be above 0 and at most 1")
        self._source = source
        self.name = f"{source.name} ({fraction:.4g} of each class)"
        self.class_names, self.num_classes = source.class_names, source.num_classes
        self.passthrough, self.notes = source.passthrough, source.notes
        self.indices = chosen(source, fraction)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._source[int(self.indices[index])]

    def all_labels(self) -> np.ndarray:
        return self._source.all_labels()[self.indices]

    def key_of(self, index: int) -> str:
        return self._source.key_of(int(self.indices[index]))

    def name_of(self, index: int) -> str:
        return self._source.name_of(int(self.indices[index]))

    def fingerprint(self) -> str:
        return digest(self._source.fingerprint(), self.indices.tobytes())


def chosen(source: Source, fraction: float) -> np.ndarray:
    """Indices int64 [n] of a fraction of each class, rounded and at least one, increasing."""
    labels = source.all_labels()
    values = np.array([uniform(f"{_SALT}{source.key_of(index)}") for index in range(len(labels))])
    order = np.lexsort((values, labels))
    starts = np.flatnonzero(np.diff(labels[order], prepend=labels.min(initial=0) - 1))
    parts = np.split(order, starts[1:]) if len(order) else []
    return np.sort(np.concatenate([part[: max(1, round(fraction * len(part)))] for part in parts]).astype(np.int64))
