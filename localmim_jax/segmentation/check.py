"""What is wrong with the masks of a split, said before the first step."""

import numpy as np
from absl import logging

from localmim_jax.data import check
from localmim_jax.data.check import readable_size
from localmim_jax.data.decode import DecodeError, image_size
from localmim_jax.errors import DataError
from localmim_jax.segmentation.numbering import IGNORED
from localmim_jax.segmentation.source import MaskSource, sizes_differ, stored_values
from localmim_jax.segmentation.sources import FakeMasks

CHECKED = 256  # examples of a split that are looked at
_SHOWN = 5  # classes that a message names


def check_examples(source: MaskSource, count: int = CHECKED) -> None:
    """Looks at some pairs, evenly spread, and logs the classes that never occur in them.

    A few pairs that cannot be decoded are left to the reading of batches, which decides what becomes of them.

    Raises:
        DataError: an image and its mask differ in size, a mask names a class that does not exist, no pixel is labeled,
            the masks hold 0 and 255 only, or none can be decoded.
    """
    if isinstance(source, FakeMasks):  # right by construction, and slow to draw
        return
    seen = np.zeros(IGNORED + 1, np.int64)  # pixels of each label
    values: set[int] = set()
    unlabeled, damaged, indices = 0, [], _spread(len(source), count)
    for index in indices:
        try:
            image, mask = source.read(index)
            found, stored = image_size(image), stored_values(mask)
        except DecodeError as error:
            damaged.append(f"{source.name_of(index)}: {error}")
            continue
        labels = source.labels(index, stored)
        if found != labels.shape:
            raise DataError(f"{source.name_of(index)}: {sizes_differ(found, labels.shape)}")
        counts = np.bincount(labels.ravel(), minlength=IGNORED + 1)
        unlabeled += int(not counts[:IGNORED].any())
        seen += counts
        values.update(np.unique(stored).tolist())
    if len(damaged) == len(indices):
        raise DataError(f"{source.name}: none of the {len(indices)} checked pairs can be read; the first: {damaged[0]}")
    _require_labels(source, seen, values, len(indices) - len(damaged))
    _report(source, seen, len(indices) - len(damaged), unlabeled)


def check_evaluated(source: MaskSource) -> None:
    """Raises DataError where an image or a mask of a split cannot be evaluated, or the two differ in size."""

    def look(index: int) -> None:
        image, mask = source.read(index)
        found, told = readable_size(image), source.labels(index, stored_values(mask)).shape
        if found != told:
            raise DataError(sizes_differ(found, told))

    if not isinstance(source, FakeMasks):
        check.check_evaluated(source, look)


def _spread(total: int, count: int) -> list[int]:
    return sorted({int(i) for i in np.linspace(0, total - 1, min(count, total))})


def _require_labels(source: MaskSource, seen: np.ndarray, values: set[int], count: int) -> None:
    binary = values == {0, IGNORED} and source.numbering.values is None
    if seen[:IGNORED].any() and not binary:
        return
    if binary or values == {IGNORED}:
        advice = (
            f"binary masks are often saved so, but {IGNORED} is no class here: list two classes and set "
            f"--config.data.mask_values=0,{IGNORED} (first and second class), or save masks of 0 and 1"
        )
    elif 0 in values and source.numbering.zero_ignored:
        advice = "0 is no class: set --config.data.zero_ignored=false if it is the first, or choose another split"
    else:
        advice = "choose another split, or give the values of the classes with --config.data.mask_values"
    shown = ", ".join(map(str, sorted(values)[:_SHOWN]))
    what = "hold 0 and 255 only" if binary else f"have no labeled pixel (values: {shown})"
    raise DataError(f"{source.name}: the {count} checked masks {what}; {advice}")


def _report(source: MaskSource, seen: np.ndarray, count: int, unlabeled: int) -> None:
    """Logs which classes do not occur: a warning where every mask was looked at, or where hardly any class occurs."""
    absent = [name for name, pixels in zip(source.class_names, seen, strict=False) if not pixels]
    checked = f"{source.name}: the {count} checked masks"
    if unlabeled:
        logging.info("%s: %d have no labeled pixel", checked, unlabeled)
    if not absent:
        return
    shown = ", ".join(absent[:_SHOWN]) + (f" and {len(absent) - _SHOWN} more" if len(absent) > _SHOWN else "")
    present = source.num_classes - len(absent)
    alone = "; a model that always predicts the one that does is right everywhere" if present == 1 else ""
    level = logging.WARNING if present == 1 or count == len(source) else logging.INFO
    logging.log(level, "%s lack %d of %d classes: %s%s", checked, len(absent), source.num_classes, shown, alone)
