"""The one reader: a place of a plan becomes a finished example, or padding."""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from localmim_jax.data.bad_examples import BadExamples
from localmim_jax.data.decode import DecodeError
from localmim_jax.data.levels import Levels
from localmim_jax.data.plan import PADDING, Group, Place
from localmim_jax.data.source import Source
from localmim_jax.errors import DataError
from localmim_jax.faults import crash_at

# (example, rng), or (example, size, rng) where groups have a size -> arrays by name
Transform: TypeAlias = Callable[..., Mapping[str, np.ndarray]]
Batch: TypeAlias = dict[str, Any]  # numpy arrays; of one example also numpy scalars


@dataclasses.dataclass(frozen=True)
class Reader:
    """(place, rng) -> what the transform makes of the example, and "id" int64, its index in the source.

    Training replaces an unreadable example by the next readable one of its group and lists it. An evaluation leaves
    nothing out, so there an unreadable example is an error; it also gives "valid", a bool that is False for padding,
    whose id is -1 and whose other values are zero.

    Attributes:
        source: examples by index.
        groups: those of the plan.
        transform: see `Transform`; raises DecodeError for an example that it cannot use.
        bad: list of unreadable examples in training; None in an evaluation.
        skip_bad: in an evaluation, an unreadable example becomes padding; otherwise it is an error.
        levels: of images with more than 8 bits a channel, handed on to the transform as the example's "levels".
    """

    source: Source
    groups: Sequence[Group]
    transform: Transform
    bad: BadExamples | None
    levels: Levels | None = None
    skip_bad: bool = False
    _paddings: dict[int, Batch] = dataclasses.field(default_factory=dict, init=False, repr=False, compare=False)

    def __call__(self, place: Place, rng: np.random.Generator) -> Batch:
        """Raises DataError: an unreadable example that cannot be replaced, or a label out of range."""
        group = self.groups[place.group]
        if place.index == PADDING:
            return self._padding(place.group, rng)
        for index in _from(place.index, group.members):
            crash_at("in_decode")
            try:
                return self._read(index, group, rng)
            except DecodeError as error:
                name = self.source.name_of(index)
                if self.bad is None and self.skip_bad:
                    return self._padding(place.group, rng)
                if self.bad is None:
                    raise DataError(f"{name}: {error}; evaluation needs every image: repair or remove it") from error
                self.bad.add(index, name, str(error))
        size = "" if group.size is None else f" for {group.size[0]} x {group.size[1]} pixels"
        raise DataError(f"not one of the {len(group.members)} images of {self.source.name}{size} can be decoded")

    def _read(self, index: int, group: Group, rng: np.random.Generator) -> Batch:
        example = {**self.source[index], "levels": self.levels}
        self._check_label(index, example)
        arguments = (example, rng) if group.size is None else (example, group.size, rng)
        valid = {"valid": np.True_} if self.bad is None else {}
        return {**self.transform(*arguments), "id": np.int64(index), **valid}

    def _check_label(self, index: int, example: dict[str, Any]) -> None:
        label = example.get("label")
        if label is not None and not 0 <= label < self.source.num_classes:
            name, classes = self.source.name_of(index), self.source.num_classes
            raise DataError(f"{name} has label {label}; {self.source.name} has {classes} classes, 0 to {classes - 1}")

    def _padding(self, number: int, rng: np.random.Generator) -> Batch:
        if number not in self._paddings:
            group = self.groups[number]
            first = self._first_readable(group, rng)
            zeros = {key: np.zeros_like(value) for key, value in first.items()}
            self._paddings[number] = zeros | {"id": np.int64(PADDING)}
        return self._paddings[number]

    def _first_readable(self, group: Group, rng: np.random.Generator) -> Batch:
        for index in group.members if self.skip_bad else group.members[:1]:
            with contextlib.suppress(*((DecodeError,) if self.skip_bad else ())):
                return self._read(index, group, rng)
        raise DataError(f"not one of the {len(group.members)} images of {self.source.name} can be decoded")


def _from(index: int, members: Sequence[int]) -> Iterator[int]:
    """`index`, then the members after it, then those before it. They are searched only if one is not enough."""
    yield index
    start = members.index(index)
    yield from itertools.chain(members[start + 1 :], members[:start])
