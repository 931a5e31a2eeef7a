"""What is wrong with the masks of a split, said before the first step."""

import threading

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


class _Seen:
    """What the masks that were looked at hold; may be added to from several threads."""

    def __init__(self, source: MaskSource):
        self.source, self.count, self.unlabeled = source, 0, 0  # masks, and those without a labeled pixel
        self.pixels = np.zeros(IGNORED + 1, np.int64)  # of each label
        self.values: set[int] = set()  # as stored
        self._lock = threading.Lock()

    def add(self, index: int, size: tuple[int, int], stored: np.ndarray) -> None:
        """Raises DataError where the mask does not fit the image's size, or has a value that is no class."""
        labels = self.source.labels(index, stored)
        if size != labels.shape:
            raise DataError(f"{self.source.name_of(index)}: {sizes_differ(size, labels.shape)}")
        counts, values = np.bincount(labels.ravel(), minlength=IGNORED + 1), np.unique(stored).tolist()
        with self._lock:
            self.count += 1
            self.unlabeled += int(not counts[:IGNORED].any())
            self.pixels += counts
            self.values.update(values)

    def report(self) -> None:
        """Logs the classes that never occur. Raises DataError: no pixel is labeled, or all values are 0 and 255."""
        _require_labels(self.source, self.pixels, self.values, self.count)
        _report(self.source, self.pixels, self.count, self.unlabeled)


def check_examples(source: MaskSource, count: int = CHECKED) -> None:
    """Looks at some pairs, evenly spread, and logs the classes that never occur in them.

    A few pairs that cannot be decoded are left to the reading of batches, which decides what becomes of them.

    Raises:
        DataError: an image and its mask differ in size, a mask names a class that does not exist, no pixel is labeled,
            the masks hold 0 and 255 only, or none can be decoded.
    """
    if isinstance(source, FakeMasks):  # right by construction, and slow to draw
        return
    seen, damaged, indices = _Seen(source), [], _spread(len(source), count)
    for index in indices:
        try:
            image, mask = source.read(index)
            size, stored = image_size(image), stored_values(mask)
        except DecodeError as error:
            damaged.append(f"{source.name_of(index)}: {error}")
            continue
        seen.add(index, size, stored)
    if len(damaged) == len(indices):
        raise DataError(f"{source.name}: none of the {len(indices)} checked pairs can be read; the first: {damaged[0]}")
    seen.report()


def check_evaluated(source: MaskSource) -> None:
    """The same of a split that is evaluated, where every pair has to be readable.

    Raises:
        DataError: an image or a mask cannot be evaluated, or what `check_examples` raises.
    """
    if isinstance(source, FakeMasks):
        return
    seen = _Seen(source)

    def look(index: int) -> None:
        image, mask = source.read(index)
        seen.add(index, readable_size(image), stored_values(mask))

    check.check_evaluated(source, look)
    seen.report()


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
