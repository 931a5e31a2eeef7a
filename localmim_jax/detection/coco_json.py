"""COCO's instances JSON, read and put in order once, before anything else sees it.

Tools write it in many ways, and pycocotools answers most of them with a wrong number: an annotation with id 0 is never
found, of two with one id only one is. In order means: ids are whole numbers, annotations are numbered from 1, `iscrowd`
and `area` are there, boxes are usable, and masks are usable or []. What cannot be put in order ends with one line.
"""

import collections
import dataclasses
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from localmim_jax.data.decode import MAX_PIXELS
from localmim_jax.detection.coco_masks import FARTHEST, mask_area, usable_mask
from localmim_jax.errors import DataError

_LARGEST_AREA = 1e10  # pycocotools evaluates no larger object
_LARGEST_ID = 2**63 - 1


@dataclasses.dataclass(frozen=True)
class Ordered:
    """A dataset in order.

    Attributes:
        dataset: {"images", "annotations", "categories"}, with the keys that COCO's evaluation needs.
        left_out: reason -> number of annotations that are left out.
        without_mask: id of an annotation whose mask is [] -> reason.
    """

    dataset: dict[str, Any]
    left_out: collections.Counter[str]
    without_mask: dict[int, str]


def read_bytes(file: Path, advice: str) -> bytes:
    """The content of a file. Raises DataError, with advice, where it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}): {advice}") from error


def parse(content: bytes, file: Path) -> Any:
    """JSON as Python's values. Raises DataError where it is none. `file` is where it is from, for messages."""
    try:
        return json.loads(content)
    except ValueError as error:
        raise DataError(f"{file} is not JSON ({error}): download it again") from error
    except RecursionError as error:
        raise DataError(f"{file} is nested too deeply for annotations: give COCO's instances format") from error


def put_in_order(dataset: Any, file: Path) -> Ordered:
    """COCO's JSON in order; see the top of this file.

    Annotations whose box has no area in the image, or is not finite, are left out.

    Args:
        dataset: the JSON.
        file: where it is from, for messages.

    Raises:
        DataError: it is not in COCO's format; names the place.
    """
    _require_keys(dataset, ("images", "annotations", "categories"), file)
    images = list(_images(dataset, file))
    categories = _categories(dataset, file)
    sizes = {image["id"]: (image["height"], image["width"]) for image in images}
    known = {category["id"] for category in categories}
    annotations: list[dict[str, Any]] = []
    left_out: collections.Counter[str] = collections.Counter()
    without_mask = {}
    for entry, name in _entries(dataset, "annotations", "annotation", file):
        image, category = (whole_number(entry, key, name) for key in ("image_id", "category_id"))
        for kind, key, listed in (("image", image, sizes), ("category", category, known)):
            if key not in listed:
                raise DataError(f"{name} is of {kind} {key}, which is not listed")
        size = sizes[image]
        box, crowd = _box(entry, name), _crowd(entry, name)
        reason = _no_box(box, *size)
        if reason:
            left_out[reason] += 1
            continue
        mask, reason = usable_mask(entry.get("segmentation"), *size)
        number = len(annotations) + 1
        if reason:
            without_mask[number] = reason
        found = {"id": number, "image_id": image, "category_id": category, "bbox": box, "iscrowd": crowd}
        annotations.append(found | {"area": _area(entry, box, mask, size), "segmentation": mask})
    return Ordered({"images": images, "annotations": annotations, "categories": categories}, left_out, without_mask)


def categories_of(dataset: Any, file: Path) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """(ids, names) of the labels, by increasing id, from COCO's JSON. `file` is where it is from, for messages.

    Raises:
        DataError: there are none, they are not as COCO has them, or two have one id.
    """
    _require_keys(dataset, ("categories",), file)
    categories = _categories(dataset, file)
    return tuple(entry["id"] for entry in categories), tuple(entry["name"] for entry in categories)


def whole_number(entry: dict[str, Any], key: str, name: str) -> int:
    """An id or a size: a whole number, also as 3.0 or "3". Raises DataError with the name of the entry."""
    value = _field(entry, key, name)
    if type(value) is str and re.fullmatch(r"-?[0-9]{1,20}", value):
        value = int(value)
    if type(value) is float and math.isfinite(value) and value == value // 1:
        value = int(value)
    if type(value) is not int or abs(value) > _LARGEST_ID:
        raise DataError(f"{name}: {key} is {_shown(value)}: a whole number is needed")
    return value


def _images(dataset: Any, file: Path) -> Iterator[dict[str, Any]]:
    ids: set[int] = set()
    for entry, name in _entries(dataset, "images", "image", file):
        number = whole_number(entry, "id", name)
        if number in ids:
            raise DataError(f"{file} gives an id to two images ({number}): make ids unique")
        ids.add(number)
        path = _field(entry, "file_name", name)
        if not isinstance(path, str) or not path or "\0" in path:
            raise DataError(f"{name}: file_name is {_shown(path)}: the name of a file is needed")
        height, width = (whole_number(entry, key, name) for key in ("height", "width"))
        if min(height, width) < 1 or height * width > MAX_PIXELS:
            raise DataError(f"{name} is of {height} x {width} pixels: 1 to {MAX_PIXELS:,} are possible")
        yield {"id": number, "file_name": path, "height": height, "width": width}


def _categories(dataset: Any, file: Path) -> list[dict[str, Any]]:
    categories = []
    for entry, place in _entries(dataset, "categories", "category", file):
        number, name = whole_number(entry, "id", place), _field(entry, "name", place)
        if not isinstance(name, str) or not name:
            raise DataError(f"{place}: name is {_shown(name)}: text is needed")
        categories.append({"id": number, "name": name})
    if not categories:
        raise DataError(f"{file} names no category: there is nothing to detect")
    if len({category["id"] for category in categories}) < len(categories):
        raise DataError(f"{file} gives an id to two categories: make ids unique")
    return sorted(categories, key=lambda category: category["id"])


def _require_keys(dataset: Any, keys: tuple[str, ...], file: Path) -> None:
    missing = [key for key in keys if not isinstance(dataset, dict) or key not in dataset]
    if missing:
        raise DataError(f"{file} lacks {', '.join(missing)}: it must be COCO's instances format")


def _entries(dataset: Any, key: str, kind: str, file: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """(entry, its name for messages) of a list of the file."""
    if not isinstance(dataset[key], list):
        raise DataError(f"{file}: {key} is {_shown(dataset[key])}, and COCO's instances format has a list there")
    for place, entry in enumerate(dataset[key]):
        if not isinstance(entry, dict):
            raise DataError(f"{file}: {key}[{place}] is {_shown(entry)}, and COCO's instances format has fields there")
        yield entry, f"{file}: {kind} {_shown(entry['id']) if 'id' in entry else f'number {place + 1}'}"


def _field(entry: dict[str, Any], key: str, name: str) -> Any:
    if key not in entry:
        raise DataError(f"{name} has no {key}: it is not in COCO's instances format")
    return entry[key]


def _box(entry: dict[str, Any], name: str) -> list[float]:
    box = _field(entry, "bbox", name)
    numbers = [_number(value) for value in box] if isinstance(box, list) else []
    if len(numbers) != 4 or None in numbers:
        raise DataError(f"{name}: bbox is {_shown(box)}: [left, top, width, height] in pixels is needed")
    return numbers  # type: ignore[return-value]


def _crowd(entry: dict[str, Any], name: str) -> int:
    value = entry.get("iscrowd")
    if value is None or type(value) is bool:
        return int(bool(value))
    number = whole_number(entry, "iscrowd", name)
    if number not in (0, 1):
        raise DataError(f"{name}: iscrowd is {number}: 0 or 1 is needed")
    return number


def _no_box(box: list[float], height: int, width: int) -> str:
    """Why a box cannot be used, "" where it can."""
    left, top, right, bottom = box[0], box[1], box[0] + box[2], box[1] + box[3]
    if not all(abs(side) <= FARTHEST for side in (left, top, right, bottom)):
        return "without a finite box"
    inside = min(right, width) > max(left, 0) and min(bottom, height) > max(top, 0)
    return "" if inside else "without area"


def _area(entry: dict[str, Any], box: list[float], mask: Any, size: tuple[int, int]) -> float:
    """What the file says where that is an area; else the mask's, or the box's without a mask."""
    area = _number(entry.get("area"))
    if area is not None and 0 < area <= _LARGEST_AREA:
        return area
    return mask_area(mask, *size) or box[2] * box[3]


def _number(value: Any) -> float | None:
    """None where it is none."""
    if type(value) not in (int, float, str):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf
    except ValueError:
        return None


def _shown(value: Any, length: int = 40) -> str:
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested deeply, or a number of thousands of digits
        return f"a {type(value).__name__}"
    return text if len(text) <= length else f"{text[:length]}..."
