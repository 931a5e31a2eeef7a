"""COCO's masks: which of them can be used, before pycocotools sees them. It reads past the end of damaged ones."""

import math
from typing import Any

import numpy as np

FARTHEST = 1e5  # pixels; what lies farther out is no annotation, and pycocotools would need memory for it
_NUMBERS = {int, float}


def usable_mask(segmentation: Any, height: int, width: int) -> tuple[Any, str]:
    """(mask, "") of an image's object, or ([], reason) where it has none that can be used.

    Of several polygons those that cannot be used are left out: fewer than six numbers (three corners), an odd number,
    or one that is not finite or farther than `FARTHEST`. Run lengths, compressed or not, must fill the image.

    Args:
        segmentation: what the annotation says.
        height, width: of the image.
    """
    if isinstance(segmentation, dict):
        if segmentation.get("size") != [height, width]:
            return [], "with a mask of another size"
        counts = segmentation.get("counts")
        lengths = run_lengths(counts)
        if lengths is None or sum(lengths) != height * width:
            return [], "with a damaged mask"
        if not sum(lengths[1::2]):
            return [], "without a mask"
        return {"size": [height, width], "counts": counts if isinstance(counts, str) else lengths}, ""
    if not isinstance(segmentation, list):
        return [], "without a mask"
    polygons = [points for points in segmentation if _is_polygon(points)]
    return polygons, "" if polygons else "without a mask"


def run_lengths(counts: Any) -> list[int] | None:
    """The lengths of COCO's run lengths, a list or the compressed text; None where they are damaged.

    In the text each number takes groups of five bits, low ones first, as characters from "0" on; a sixth bit says that
    another group follows. From the fourth number on, numbers are differences to the last but one
    (pycocotools, maskApi.c).
    """
    if isinstance(counts, list):
        whole = all(type(count) in _NUMBERS and count >= 0 and count == count // 1 for count in counts)
        return [int(count) for count in counts] if whole else None
    if not isinstance(counts, str) or not counts or not counts.isascii():
        return None
    groups = np.frombuffer(counts.encode(), np.uint8).astype(np.int64) - 48
    if groups.min() < 0 or groups.max() > 63 or groups[-1] & 32:
        return None
    last = np.flatnonzero(groups & 32 == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    if (last - first).max() > 5:  # 30 bits are more than an image has pixels
        return None
    place = np.arange(len(groups)) - np.repeat(first, last - first + 1)
    numbers = np.add.reduceat((groups & 31) << 5 * place, first)
    numbers -= np.where(groups[last] & 16, 1 << 5 * (last - first + 1), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return None if numbers.min() < 0 else numbers.tolist()


def encoded(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """pycocotools' run lengths of a mask that `usable_mask` gave; not of []."""
    from pycocotools import mask as coco_mask

    if isinstance(segmentation, list):
        return coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    if isinstance(segmentation["counts"], list):
        return coco_mask.frPyObjects(segmentation, height, width)
    return segmentation


def mask_area(segmentation: Any, height: int, width: int) -> float:
    """In pixels; 0 for []."""
    from pycocotools import mask as coco_mask

    return float(coco_mask.area(encoded(segmentation, height, width))) if segmentation else 0.0


def _is_polygon(points: Any) -> bool:
    if not isinstance(points, list) or len(points) < 6 or len(points) % 2 or not _NUMBERS.issuperset(map(type, points)):
        return False
    # The sum is not finite where a number is not: NaN would escape min and max.
    return max(points) <= FARTHEST and min(points) >= -FARTHEST and math.isfinite(sum(points))
