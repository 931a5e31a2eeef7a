"""Images with objects: any dataset in COCO's format.

A dataset is a folder with `annotations/instances_<split>.json` and the images of a split in `<split>/`,
`images/<split>/` or `images/`. Category ids may have gaps and any order: labels number them from 0 by increasing id.
"""

import collections
import contextlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from localmim_jax.data.decode import read_file
from localmim_jax.data.walk import composed, find_files, is_file
from localmim_jax.detection.source import DetectionSource, Objects
from localmim_jax.errors import DataError

_MIN_SIDE = 1.0  # pixels; narrower boxes are annotation errors


class CocoSource(DetectionSource):
    """A split of a dataset in COCO's format.

    Objects are left out, and counted in the log, where they are crowds, have no area within the image, or no mask.

    Args:
        root: folder of the dataset.
        split: "train2017", for example.
        skip_empty: leave out images without a usable object.

    Raises:
        DataError: a file is missing or is not what COCO's format says; names the place.
    """

    def __init__(self, root: str, split: str, skip_empty: bool = False):
        self.name = f"coco:{root}[{split}]"
        self._root = Path(root).expanduser()
        self._file = self._root / "annotations" / f"instances_{split}.json"
        dataset = self.dataset()
        self.category_ids, self.class_names = categories_of(dataset, self._file)
        self.num_classes = len(self.class_names)
        with _well_formed(self._file):
            self._images = [
                (int(image["id"]), str(image["file_name"]), int(image["height"]), int(image["width"]))
                for image in dataset["images"]
            ]
        if len({image[0] for image in self._images}) < len(self._images):
            raise DataError(f"{self._file} gives an id to two images: make ids unique")
        self._folder = self._find_folder(split)
        self._paths = self._find_images()
        self._objects = self._sort(dataset["annotations"])
        if skip_empty:
            used = [image for image in self._images if len(self._objects[image[0]].labels)]
            if len(used) < len(self._images):
                empty = len(self._images) - len(used)
                logging.info("%s: %d images without a usable object are left out", self.name, empty)
            self._images = used
        if not self._images:
            raise DataError(f"{self.name} has no image{' with an object' if skip_empty else ''}: choose another split")
        self.max_objects = max(len(objects.labels) for objects in self._objects.values())

    def __len__(self) -> int:
        return len(self._images)

    def size_of(self, index: int) -> tuple[int, int]:
        return self._images[index][2:]

    def objects(self, index: int) -> Objects:
        return self._objects[self._images[index][0]]

    def read(self, index: int) -> bytes:
        return read_file(self._path(index))

    def image_id(self, index: int) -> int:
        return self._images[index][0]

    def name_of(self, index: int) -> str:
        return str(self._path(index))

    def missing(self) -> list[str]:
        return [self.name_of(index) for index in range(len(self)) if self._images[index][1] not in self._paths]

    def _path(self, index: int) -> Path:
        name = self._images[index][1]
        return self._folder / self._paths.get(name, name)

    def _find_images(self) -> dict[str, str]:
        """The file of each image that the json names. File systems may have another form of Unicode than the json."""
        names = [image[1] for image in self._images]
        found = find_files(self._folder)
        self.notes = tuple(found.notes())
        there = set(found.files)
        paths = {name: name for name in names if name in there or is_file(self._folder / name)}
        if len(paths) < len(names):
            forms = {composed(name): name for name in found.files}
            paths |= {name: forms[composed(name)] for name in names if name not in paths and composed(name) in forms}
        return paths

    def dataset(self) -> dict[str, Any]:
        try:
            dataset = json.loads(self._file.read_bytes())
        except OSError as error:
            folder = self._file.parent
            found = sorted(path.name for path in folder.glob("instances_*.json")) if folder.is_dir() else []
            advice = f"there is {', '.join(found)}" if found else "it holds COCO's annotations of that split"
            raise DataError(f"{self._file} cannot be read ({error.strerror}): {advice}") from error
        except ValueError as error:
            raise DataError(f"{self._file} is no JSON ({error}): download it again") from error
        missing = [
            key
            for key in ("images", "annotations", "categories")
            if not isinstance(dataset, dict) or key not in dataset
        ]
        if missing:
            raise DataError(f"{self._file} lacks {', '.join(missing)}: it must be COCO's instances format")
        return dataset

    def _find_folder(self, split: str) -> Path:
        places = [self._root / split, self._root / "images" / split, self._root / "images"]
        for place in places:
            if place.is_dir():
                return place
        raise DataError(
            f"{self._root} has no folder with the images of {split}: it may be {', '.join(map(str, places))}"
        )

    def _sort(self, annotations: list[dict[str, Any]]) -> dict[int, Objects]:
        """The usable objects of every image by its id."""
        sizes = {image[0]: image[2:] for image in self._images}
        label_of = {category: label for label, category in enumerate(self.category_ids)}
        found: dict[int, list[tuple[Any, int, Any]]] = {image: [] for image in sizes}
        left_out: dict[str, int] = collections.defaultdict(int)
        with _well_formed(self._file):
            for annotation in annotations:
                image, category = annotation["image_id"], annotation["category_id"]
                for kind, key, known in (("image", image, sizes), ("category", category, label_of)):
                    if key not in known:
                        raise DataError(
                            f"{self._file}: annotation {annotation.get('id')} is of {kind} {key}, which is not listed"
                        )
                reason = _unusable(annotation, *sizes[image])
                if reason:
                    left_out[reason] += 1
                else:
                    found[image].append((_corners(annotation["bbox"]), label_of[category], annotation["segmentation"]))
        number = sum(map(len, found.values()))
        counts = "".join(f"; left out: {count} {reason}" for reason, count in sorted(left_out.items()))
        logging.info("%s: %d images, %d objects of %d classes%s", self.name, len(sizes), number, len(label_of), counts)
        return {image: _objects(entries) for image, entries in found.items()}


def categories_of(dataset: Any, file: Path) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """(ids, names) of the labels, by increasing id, from COCO's JSON. `file` is where it is from, for messages.

    Raises:
        DataError: there are none, they are not as COCO has them, or two have one id.
    """
    with _well_formed(file):
        categories = sorted(dataset["categories"], key=lambda category: category["id"])
        ids = tuple(int(category["id"]) for category in categories)
        names = tuple(str(category["name"]) for category in categories)
    if not ids:
        raise DataError(f"{file} names no category: there is nothing to detect")
    if len(set(ids)) < len(ids):
        raise DataError(f"{file} gives an id to two categories: make ids unique")
    return ids, names


def _unusable(annotation: dict[str, Any], height: int, width: int) -> str:
    """Why an object cannot be learned from; "" where it can."""
    if annotation.get("iscrowd", 0):
        return "crowds"
    left, top, right, bottom = _corners(annotation["bbox"])
    if not all(map(math.isfinite, (left, top, right, bottom))):
        return "without a finite box"
    inside = min(right, width) > max(left, 0) and min(bottom, height) > max(top, 0)
    if right - left < _MIN_SIDE or bottom - top < _MIN_SIDE or annotation.get("area", 1) <= 0 or not inside:
        return "without area"
    mask = annotation.get("segmentation")
    if isinstance(mask, dict):
        return (
            "" if "counts" in mask and list(mask.get("size", ())) == [height, width] else "with a mask of another size"
        )
    drawn = isinstance(mask, list) and any(len(polygon) >= 6 for polygon in mask)
    return "" if drawn else "without a mask"


def _corners(box: list[float]) -> tuple[float, float, float, float]:
    left, top, width, height = map(float, box)
    return left, top, left + width, top + height


def _objects(entries: list[tuple[Any, int, Any]]) -> Objects:
    boxes = np.array([box for box, _, _ in entries], np.float32).reshape(-1, 4)
    labels = np.array([label for _, label, _ in entries], np.int32)
    return Objects(boxes, labels, tuple(mask for _, _, mask in entries))


@contextlib.contextmanager
def _well_formed(file: Path):
    """Whatever a damaged file makes Python raise means the same to its owner."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"{file} is not in COCO's instances format ({reason})") from error
