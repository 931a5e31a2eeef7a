"""Buckets of landscape and of portrait images: a compiled step has one shape, so a batch holds images of one bucket."""

from localmim_jax.data.plan import Group, Size
from localmim_jax.detection.source import DetectionSource


def make_buckets(source: DetectionSource, image_size: Size) -> tuple[Group, ...]:
    """The source's landscape images and its portrait images, each where there are any; one bucket for a square size.

    Args:
        source: images with known sizes.
        image_size: (h, w) of the landscape bucket in pixels. Portrait images use it transposed.
    """
    h, w = image_size
    members: dict[Size, list[int]] = {(h, w): [], (w, h): []}
    for index in range(len(source)):
        members[bucket_size(source.size_of(index), image_size)].append(index)
    return tuple(Group(tuple(found), size) for size, found in members.items() if found)


def bucket_size(size: Size, image_size: Size) -> Size:
    """(h, w) of the bucket of an image of this `size`: the landscape `image_size`, or that transposed."""
    h, w = image_size
    return (h, w) if size[1] >= size[0] else (w, h)
