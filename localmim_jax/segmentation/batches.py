"""Batches of whole images with masks, to evaluate: each batch of one shape, every image in exactly one.

Training needs nothing of its own: its crops have one shape, and `data.pipeline.train_batches` makes them. Whole images
differ in size. They are sorted into groups that have one size after resizing; a group's masks are padded to the largest
of them, and its last batch with places that are not valid.
"""

import dataclasses
from collections.abc import Iterator

import grain
import numpy as np

from localmim_jax.data import pipeline
from localmim_jax.data.config import DataConfig, host_batch
from localmim_jax.data.decode import DecodeError
from localmim_jax.errors import DataError
from localmim_jax.segmentation.augment import SegmentationEvalTransform, Size
from localmim_jax.segmentation.sources import MaskSource

Batch = pipeline.Batch


@dataclasses.dataclass(frozen=True)
class Group:
    """Images of one size after resizing.

    Attributes:
        members: their indices, increasing.
        canvas: (h, w) that holds each of their masks.
    """

    members: tuple[int, ...]
    canvas: Size


def make_groups(source: MaskSource, transform: SegmentationEvalTransform) -> tuple[Group, ...]:
    """The source's images by their sizes after resizing, sorted; every image's header is read.

    Raises:
        DataError: an image's size cannot be told.
    """
    found: dict[tuple[Size, ...], list[int]] = {}
    sizes = [source.size_of(index) for index in range(len(source))]
    for index, size in enumerate(sizes):
        found.setdefault(transform.sizes(size), []).append(index)

    def canvas(members: list[int]) -> Size:
        return max(sizes[i][0] for i in members), max(sizes[i][1] for i in members)

    return tuple(Group(tuple(found[key]), canvas(found[key])) for key in sorted(found))


def eval_batches(
    config: DataConfig,
    source: MaskSource,
    transform: SegmentationEvalTransform,
    groups: tuple[Group, ...],
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Every image once over all hosts, one group after the other, and as many batches on every host.

    Yields:
        What the transform gives, stacked; "id" int64 [b], indices in the source; "valid" bool [b], False for padding,
        whose id is -1. At a step all hosts have the same shapes.

    Raises:
        ConfigError: the batch does not divide among the hosts.
        DataError: an example cannot be used, since an evaluation leaves nothing out.
    """
    batch = host_batch(batch_size, process_count)
    places: list[tuple[int, int]] = []
    for number, group in enumerate(groups):
        places += [(number, index) for index in group.members]
        places += [(number, -1)] * (-len(places) % batch_size)
    seed = pipeline.stream_seed(config.seed, pipeline.EVALUATE)
    examples = grain.MapDataset.source(places).random_map(_Read(source, transform, groups), seed=seed)
    part = pipeline.HostPart(examples, batch_size, 0, len(places) // batch_size, process_index, process_count)
    return pipeline.iterate(part, batch, config)


@dataclasses.dataclass(frozen=True)
class _Read:
    """(group, index or -1 for padding), rng -> an example."""

    source: MaskSource
    transform: SegmentationEvalTransform
    groups: tuple[Group, ...]

    def __call__(self, place: tuple[int, int], rng: np.random.Generator) -> Batch:
        number, index = place
        group = self.groups[number]
        if index < 0:
            first = self((number, group.members[0]), rng)
            return {key: np.zeros_like(value) for key, value in first.items()} | {"id": np.int64(-1)}
        try:
            made = self.transform(self.source[index], group.canvas, rng)
        except DecodeError as error:
            name = self.source.name_of(index)
            raise DataError(f"{name}: {error}; evaluation needs every image: repair or remove it") from error
        return {**made, "id": np.int64(index), "valid": np.True_}
