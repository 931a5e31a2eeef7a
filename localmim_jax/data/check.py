"""What an evaluation will read, looked at before the first step: an evaluation leaves no image out."""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from absl import logging

from localmim_jax.data.config import available_cores
from localmim_jax.data.decode import decode, image_size
from localmim_jax.data.source import Source
from localmim_jax.errors import DataError, printable

ALL_UP_TO = 5000  # examples; of a larger split `SAMPLED`, evenly spread, are looked at
SAMPLED = 2000
_SHOWN = 3
_TAIL = 1 << 16  # bytes at a file's end that are searched for its end mark
_END_MARKS = {b"\xff\xd8\xff": b"\xff\xd9", b"\x89PNG": b"IEND"}  # first bytes of JPEG and PNG: their end mark


def check_evaluated(
    source: Source,
    look: Callable[[int], None] | None = None,
    members: Sequence[int] | None = None,
    threads: int | None = None,
) -> None:
    """Looks at the examples of a split that an evaluation reads.

    Headers are read, and an image whose end is missing is decoded. Of more than `ALL_UP_TO` examples a sample is taken.

    Args:
        source: the split.
        look: (index) -> None, raises DecodeError or DataError for an example that cannot be evaluated; by default image
            and label.
        members: indices of the examples that are read; None for all.
        threads: that read; None for some a core.

    Raises:
        DataError: some examples cannot be evaluated; says how many and names the first.
    """
    look = look or functools.partial(look_at, source)
    members = range(len(source)) if members is None else members
    count = len(members) if len(members) <= ALL_UP_TO else SAMPLED
    indices = [members[i] for i in sorted({int(i) for i in np.linspace(0, len(members) - 1, count)})]

    def problem(index: int) -> str:
        try:
            look(index)
        except DataError as error:
            name, text = printable(source.name_of(index)), str(error)
            return text if name in text else f"{name}: {text}"
        return ""

    with ThreadPoolExecutor(max_workers=threads or min(16, 4 * available_cores())) as pool:
        problems = [text for text in pool.map(problem, indices) if text]
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise DataError(
            f"{source.name}: {len(problems)} of the {len(indices)} checked images cannot be evaluated: "
            f"{'; '.join(problems[:_SHOWN])}{more}; an evaluation needs every image: repair or remove them"
        )
    if len(indices) < len(members):
        logging.info("%s: %d of %d images checked, all can be evaluated", source.name, len(indices), len(members))


def look_at(source: Source, index: int) -> None:
    """Image and label of one example. Raises DecodeError or DataError where it cannot be evaluated."""
    example = source[index]
    readable_size(example["image"])
    label = example.get("label")
    if label is not None and not 0 <= label < source.num_classes:
        raise DataError(f"label {label} of {source.num_classes} classes, 0 to {source.num_classes - 1}")


def readable_size(image: Any) -> tuple[int, int]:
    """(height, width) in pixels, upright, of encoded bytes or an array.

    Raises:
        DecodeError: the header is damaged, or the file is cut off.
    """
    if isinstance(image, bytes):
        mark = next((mark for start, mark in _END_MARKS.items() if image.startswith(start)), b"")
        if mark not in image[-_TAIL:]:
            decode(image, 3)
    return image_size(image)
