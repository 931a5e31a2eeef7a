"""Batches of images with objects: pure in (seed, step), each of one padded shape.

A jitted step has one shape, and images lie or stand. Images are therefore kept in buckets, lying and standing ones;
every bucket is an endless line of positions in which its images come once an epoch, in a new order each time, and a
global batch is the next piece of one line. Which line is told by the step alone: of the first s steps, the standing
images' share, rounded, is of theirs. So an image that does not fill a batch at the end of its bucket's epoch opens the
next batch together with the first images of the next epoch; none is lost, and at every step each image has been read
as often as any other of its bucket, or once more.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np

from localmim_jax.data import pipeline
from localmim_jax.data.bad_examples import BadExamples
from localmim_jax.data.config import DataConfig, host_batch
from localmim_jax.data.decode import DecodeError
from localmim_jax.detection.augment import Size
from localmim_jax.detection.coco import DetectionSource
from localmim_jax.errors import DataError

Batch = dict[str, Any]  # numpy arrays; of one example also numpy scalars
Transform = Callable[[DetectionSource, int, Size, np.random.Generator], Batch]


@dataclasses.dataclass(frozen=True)
class Buckets:
    """The images of a source by shape.

    Attributes:
        shapes: (h, w) of each bucket that has images.
        members: indices of each bucket's images.
    """

    shapes: tuple[Size, ...]
    members: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, source: DetectionSource, image_size: Size) -> "Buckets":
        """Lying images in `image_size`, standing ones in that turned by a quarter; one bucket where it is a square."""
        h, w = image_size
        shapes = tuple(dict.fromkeys(((h, w), (w, h))))
        members: list[list[int]] = [[] for _ in shapes]
        for index in range(len(source)):
            members[shapes.index(shape_for(source.size_of(index), image_size))].append(index)
        used = [i for i, found in enumerate(members) if found]
        return cls(tuple(shapes[i] for i in used), tuple(tuple(members[i]) for i in used))

    def at(self, step: int) -> tuple[int, int]:
        """(bucket of a training step's batch, number of batches of that bucket before it)."""
        if len(self.members) == 1:
            return 0, step
        total, share = sum(map(len, self.members)), len(self.members[1])

        def of_second(steps: int) -> int:
            return (2 * steps * share + total) // (2 * total)

        before = of_second(step)
        return (1, before) if of_second(step + 1) > before else (0, step - before)


def shape_for(size: Size, image_size: Size) -> Size:
    """(h, w) of the bucket for an image of `size`: `image_size`, which lies, or that turned by a quarter."""
    h, w = image_size
    return (h, w) if size[1] >= size[0] else (w, h)


def train_batches(
    config: DataConfig,
    source: DetectionSource,
    transform: Transform,
    first_step: int,
    num_steps: int,
    process_index: int = 0,
    process_count: int = 1,
    bad_list: Path | None = None,
) -> Iterator[Batch]:
    """This host's training batches of steps `first_step` to `num_steps` - 1.

    Yields:
        What the transform gives, stacked, and "id" int64 [b], indices in the source. At a step all hosts have the same
        bucket.

    Raises:
        ConfigError: the batch does not divide among the hosts.
        DataError: more images cannot be used than `max_bad_fraction` allows; they are named.
    """
    batch = host_batch(config.batch_size, process_count)
    if bad_list is not None and process_index:
        bad_list = Path(f"{bad_list}.{process_index}")
    bad = BadExamples(source.name, len(source), config.max_bad_fraction, bad_list)
    buckets = Buckets.of(source, config.image_size)
    positions = _Planned(buckets, config.batch_size, config.seed)
    examples = positions.random_map(
        _Read(source, buckets, transform, bad), seed=pipeline.stream_seed(config.seed, pipeline.AUGMENT)
    )
    part = pipeline.HostPart(examples, config.batch_size, first_step, num_steps, process_index, process_count)
    return pipeline.iterate(part, batch, config)


def eval_batches(
    config: DataConfig,
    source: DetectionSource,
    transform: Transform,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Every image once over all hosts, one bucket after the other, and as many batches on every host.

    Yields:
        As `train_batches`, and "valid" bool [b]: False for padding, whose id is -1.

    Raises:
        ConfigError: the batch does not divide among the hosts.
        DataError: an image cannot be used, since an evaluation leaves nothing out.
    """
    batch = host_batch(batch_size, process_count)
    buckets = Buckets.of(source, config.image_size)
    positions: list[tuple[int, int]] = []
    for bucket, members in enumerate(buckets.members):
        positions += [(bucket, index) for index in members]
        positions += [(bucket, -1)] * (-len(positions) % batch_size)
    read = _ReadForEvaluation(_Read(source, buckets, transform, None))
    seed = pipeline.stream_seed(config.seed, pipeline.EVALUATE)
    examples = grain.MapDataset.source(positions).random_map(read, seed=seed)
    steps = len(positions) // batch_size
    part = pipeline.HostPart(examples, batch_size, 0, steps, process_index, process_count)
    return pipeline.iterate(part, batch, config)


class _Planned(grain.MapDataset):
    """(bucket, index) at every position of the run: step * batch_size + place in the batch."""

    def __init__(self, buckets: Buckets, batch_size: int, seed: int):
        order = pipeline.stream_seed(seed, pipeline.ORDER)
        super().__init__(
            [
                grain.MapDataset.source(members).shuffle(seed=order + bucket).repeat()
                for bucket, members in enumerate(buckets.members)
            ]
        )
        self._buckets, self._batch_size = buckets, batch_size

    def __len__(self) -> int:
        return min(len(parent) for parent in self._parents)

    def __getitem__(self, index: int | slice):
        if isinstance(index, slice):
            return self.slice(index)
        step, place = divmod(index, self._batch_size)
        bucket, before = self._buckets.at(step)
        return bucket, self._parents[bucket][before * self._batch_size + place]


@dataclasses.dataclass(frozen=True)
class _Read:
    """(bucket, index), rng -> a finished example; where it cannot be used, the bucket's next one that can."""

    source: DetectionSource
    buckets: Buckets
    transform: Transform
    bad: BadExamples | None  # None: nothing may be bad

    def __call__(self, place: tuple[int, int], rng: np.random.Generator) -> Batch:
        bucket, index = place
        shape, members = self.buckets.shapes[bucket], self.buckets.members[bucket]
        for candidate in _from(index, members):
            try:
                return {**self.transform(self.source, candidate, shape, rng), "id": np.int64(candidate)}
            except DecodeError as error:
                name = self.source.name_of(candidate)
                if self.bad is None:
                    raise DataError(f"{name}: {error}; evaluation needs every image: repair or remove it") from error
                self.bad.add(candidate, name, str(error))
        raise DataError(f"not one of the {len(members)} images of {shape} in {self.source.name} can be used")


def _from(index: int, members: tuple[int, ...]) -> Iterator[int]:
    """`index` and the members after it, round to where it began; they are searched only if it is not enough."""
    yield index
    start = members.index(index)
    yield from members[start + 1 :] + members[:start]


@dataclasses.dataclass(frozen=True)
class _ReadForEvaluation:
    """(bucket, index or -1 for padding), rng -> an example."""

    read: _Read

    def __call__(self, place: tuple[int, int], rng: np.random.Generator) -> Batch:
        bucket, index = place
        if index >= 0:
            return {**self.read(place, rng), "valid": np.True_}
        first: Sequence[int] = self.read.buckets.members[bucket]
        zeros = {key: np.zeros_like(value) for key, value in self.read((bucket, first[0]), rng).items()}
        return {**zeros, "id": np.int64(-1), "valid": np.False_}
