"""Plans: which example is read at which position of a run. Position step * batch_size + i is example i of that step.

A compiled step has one shape, so a batch holds examples of one group only: examples that become equally large. A source
whose examples all do is one group.
"""

import bisect
import dataclasses
import itertools
from collections.abc import Sequence
from typing import TypeAlias

import grain
import numpy as np

Size: TypeAlias = tuple[int, int]  # height, width

PADDING = -1  # index of a position that only fills up a batch

ORDER, AUGMENT, EVALUATE = range(3)  # what a random stream is for


@dataclasses.dataclass(frozen=True)
class Place:
    """What is read at one position: an example of a group.

    Attributes:
        group: number of the group.
        index: of the example in the source, or `PADDING`.
    """

    group: int
    index: int


@dataclasses.dataclass(frozen=True)
class Group:
    """Examples of a source that one batch may hold together.

    Attributes:
        members: their indices, increasing.
        size: (h, w) in pixels that the transform is told; None for a transform that needs none.
    """

    members: Sequence[int]
    size: Size | None = None


def one_group(count: int, max_examples: int = 0) -> tuple[Group]:
    """One group of all `count` examples of a source, or of `max_examples` of them, evenly spaced (0: all)."""
    if not 0 < max_examples < count:
        return (Group(range(count)),)
    return (Group(tuple(i * count // max_examples for i in range(max_examples))),)


class TrainingPlan:
    """position -> Place of an endless run in which every example is read once an epoch.

    Each group is an endless line: its examples once an epoch, in a new order each time. A global batch is the next
    piece of one line, and the step number alone selects the line: of the first s steps, the second group gets its
    fraction of all examples, rounded. So what does not fill a batch at the end of a group's epoch opens the group's
    next batch, together with the first examples of the next epoch. None is lost, and at every step each example has
    been read as often as any other of its group, or once more.

    Args:
        groups: one or two.
        batch_size: global.
        seed: of the order.

    Raises:
        ValueError: there are more groups.
    """

    def __init__(self, groups: Sequence[Group], batch_size: int, seed: int):
        if len(groups) not in (1, 2):
            raise ValueError(f"training takes turns between one or two groups, not {len(groups)}")
        order = stream_seed(seed, ORDER)
        self._lines = [
            grain.MapDataset.source(group.members).shuffle(seed=order + number).repeat()
            for number, group in enumerate(groups)
        ]
        self._counts = [len(group.members) for group in groups]
        self._batch_size = batch_size

    def __len__(self) -> int:
        return min(map(len, self._lines))

    def __getitem__(self, position: int) -> Place:
        step, offset = divmod(position, self._batch_size)
        group, before = self.at(step)
        return Place(group, self._lines[group][before * self._batch_size + offset])

    def at(self, step: int) -> tuple[int, int]:
        """(group of a step's batch, number of batches of that group before it)."""
        if len(self._counts) == 1:
            return 0, step
        total, second = sum(self._counts), self._counts[1]

        def of_second(steps: int) -> int:
            return (2 * steps * second + total) // (2 * total)

        before = of_second(step)
        return (1, before) if of_second(step + 1) > before else (0, step - before)


class EvaluationPlan:
    """position -> Place, every example once: one group after the other, each padded to whole batches."""

    def __init__(self, groups: Sequence[Group], batch_size: int):
        self._groups = groups
        self._ends = list(itertools.accumulate(-(-len(group.members) // batch_size) * batch_size for group in groups))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, position: int) -> Place:
        group = bisect.bisect_right(self._ends, position)
        offset = position - (self._ends[group - 1] if group else 0)
        members = self._groups[group].members
        return Place(group, members[offset] if offset < len(members) else PADDING)


def stream_seed(seed: int, purpose: int) -> int:
    """A seed for one purpose, far from those of others and of neighboring seeds."""
    return int(np.random.SeedSequence((seed, purpose)).generate_state(1)[0])
