"""Which value in a stored mask stands for which class."""

import dataclasses
import functools

import numpy as np

from localmim_jax.errors import ConfigError

IGNORED = 255  # label of a pixel that no loss and no metric counts

_UNKNOWN = -1


class UnknownValue(ValueError):
    """A mask has a value that stands for nothing. The text is the value."""


@dataclasses.dataclass(frozen=True)
class Numbering:
    """From the values of stored masks to labels, 0 to num_classes - 1 or `IGNORED`, and back.

    Classes are numbered in a row. 255 is "no class" unless `values` lists it.

    Attributes:
        num_classes: number of classes.
        zero_ignored: whether 0 is "no class" and 1 the first class; else 0 is the first class.
        values: the value of each class, 0 to 255, where they are not numbered in a row: (0, 255) for binary masks.

    Raises:
        ConfigError: there are more classes than a mask can tell apart, or the values are not one for each class.
    """

    num_classes: int
    zero_ignored: bool
    values: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.values is None:
            first = self._first
            if first + self.num_classes > IGNORED:
                raise ConfigError(
                    f"{self.num_classes} classes are listed, but masks can have at most {IGNORED - first}: their "
                    f"values go from {first} to {IGNORED - 1}, and {IGNORED} is no class"
                )
            return
        shown = ",".join(map(str, self.values))
        if len(self.values) != self.num_classes:
            raise ConfigError(
                f"data.mask_values={shown} has {len(self.values)} values, and {self.num_classes} classes are listed: "
                "give the value of each class, in their order"
            )
        valid = all(0 <= value <= 255 for value in self.values)
        if not valid or len(set(self.values)) < len(self.values) or len(self.values) > IGNORED:
            raise ConfigError(f"data.mask_values={shown}: different whole numbers from 0 to 255 are needed")

    @property
    def _first(self) -> int:
        return 1 if self.zero_ignored else 0

    @functools.cached_property
    def _of_classes(self) -> np.ndarray:
        in_a_row = range(self._first, self._first + self.num_classes)
        return np.array(in_a_row if self.values is None else self.values, np.int32)

    @functools.cached_property
    def _labels(self) -> np.ndarray:
        table = np.full(256, _UNKNOWN, np.int32)
        table[IGNORED] = IGNORED
        if self.zero_ignored:
            table[0] = IGNORED
        table[self._of_classes] = np.arange(self.num_classes)
        return table

    def labels(self, stored: np.ndarray) -> np.ndarray:
        """Values [h, w] of a mask -> uint8 [h, w], labels. Raises UnknownValue."""
        low, high = int(stored.min(initial=0)), int(stored.max(initial=0))
        if low < 0 or high > 255:
            raise UnknownValue(low if low < 0 else high)
        labels = self._labels[stored]
        if (labels == _UNKNOWN).any():
            raise UnknownValue(int(stored[labels == _UNKNOWN].max()))
        return labels.astype(np.uint8)

    def stored(self, labels: np.ndarray) -> np.ndarray:
        """uint8 labels as a mask has them. `IGNORED` is 0 with `zero_ignored`, and itself without."""
        table = np.arange(256)
        table[: self.num_classes] = self._of_classes
        table[IGNORED] = 0 if self.zero_ignored else IGNORED
        return table[labels].astype(np.uint8)

    def describe(self) -> str:
        """What the values of a mask may be."""
        if self.values is not None:
            return f"values are {', '.join(map(str, self.values))} (data.mask_values)"
        nothing = ", 0 being no class" if self.zero_ignored else ""
        return f"values go from {self._first} to {self._first + self.num_classes - 1}{nothing}, or are {IGNORED}"
