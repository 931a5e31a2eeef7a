"""Whole images in groups of one size, for the evaluation: each batch holds images of one group.

Images are grouped by their size after resizing. A group's masks, which keep their original sizes, are padded to the
largest of them. Training has one group: all its crops have one size.
"""

from localmim_jax.data.plan import Group, Size
from localmim_jax.segmentation.augment import SegmentationEvalTransform
from localmim_jax.segmentation.source import MaskSource


def make_groups(source: MaskSource, transform: SegmentationEvalTransform) -> tuple[Group, ...]:
    """The source's images by their sizes after resizing, sorted. Every image's header is read.

    Returns:
        Groups whose size (h, w) holds each of their masks.

    Raises:
        DataError: an image's header cannot be read.
    """
    found: dict[tuple[Size, ...], list[int]] = {}
    sizes = [source.size_of(index) for index in range(len(source))]
    for index, size in enumerate(sizes):
        found.setdefault(transform.sizes(size), []).append(index)

    def canvas(members: list[int]) -> Size:
        return max(sizes[i][0] for i in members), max(sizes[i][1] for i in members)

    return tuple(Group(tuple(found[key]), canvas(found[key])) for key in sorted(found))
