"""Images with objects: any dataset in COCO's format.

A dataset is a folder with `annotations/instances_<split>.json` and the images of a split in `<split>/`,
`images/<split>/` or `images/`, or where their names lead from the folder ("val2017/1.jpg"). Category ids may have gaps
and any order: labels number them from 0 by increasing id.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from localmim_jax.data.decode import read_file
from localmim_jax.data.fingerprint import digest, of_files
from localmim_jax.data.names import composed, some
from localmim_jax.data.walk import find_files, is_file
from localmim_jax.detection.coco_json import Ordered, parse, put_in_order, read_bytes
from localmim_jax.detection.source import DetectionSource, Objects
from localmim_jax.errors import DataError

_MIN_SIDE = 1.0  # pixels; narrower boxes are annotation errors
_BEYOND, _FEW = 2.0, 0.05  # pixels that a box may reach beyond its image, and the fraction of boxes that may do so


class CocoSource(DetectionSource):
    """A split of a dataset in COCO's format.

    Objects cannot be learned from, and are counted in the log, where they are crowds, have no area within the image, or
    no usable mask. Which of them are evaluated is told at `coco_ap.average_precision`.

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
        self._digest: bytes | None = None
        ordered = self._read()
        categories = ordered.dataset["categories"]
        self.category_ids = tuple(category["id"] for category in categories)
        self.class_names = tuple(category["name"] for category in categories)
        self.num_classes = len(categories)
        self._images = [
            (image["id"], image["file_name"], image["height"], image["width"]) for image in ordered.dataset["images"]
        ]
        self._folder = self._find_folder(split)
        self._paths = self._find_images()
        self._objects = self._sort(ordered)
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

    def fingerprint(self) -> str:
        names = [self._paths.get(image[1], image[1]) for image in self._images]
        return digest(self._digest, of_files(self._folder, names))

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
        for name in names:
            if name not in paths and (elsewhere := self._elsewhere(name)):
                paths[name] = elsewhere
        return paths

    def _elsewhere(self, name: str) -> str:
        """The file of an image whose name has the split or another folder in front, as in "val2017/1.jpg"."""
        name = name.replace("\\", "/")
        places = (root / name for root in (self._folder, self._root, self._root / "images"))
        return next((os.path.relpath(path, self._folder) for path in places if is_file(path)), "")

    def dataset(self) -> dict[str, Any]:
        """Raises DataError where the file has changed since it was opened, for its objects are those of then."""
        return self._read().dataset

    def _read(self) -> Ordered:
        """The file in order. It is read again for every evaluation, since a large one takes gigabytes of memory."""
        folder = self._file.parent
        found = sorted(path.name for path in folder.glob("instances_*.json")) if folder.is_dir() else []
        advice = f"there is {some(found)}" if found else "it holds COCO's annotations of that split"
        content = read_bytes(self._file, advice)
        digest = hashlib.sha256(content).digest()
        if self._digest not in (None, digest):
            raise DataError(f"{self._file} has changed since this run read it: start the run again")
        self._digest = digest
        return put_in_order(parse(content, self._file), self._file)

    def _find_folder(self, split: str) -> Path:
        places = [self._root / split, self._root / "images" / split, self._root / "images"]
        for place in places:
            if place.is_dir():
                return place
        if self._images and is_file(self._root / self._images[0][1].replace("\\", "/")):
            return self._root
        raise DataError(
            f"{self._root} has no folder with the images of {split}: it may be {', '.join(map(str, places))}"
        )

    def _sort(self, ordered: Ordered) -> dict[int, Objects]:
        """The usable objects of every image by its id."""
        label_of = {category: label for label, category in enumerate(self.category_ids)}
        sizes = {image[0]: image[2:] for image in self._images}
        found: dict[int, list[tuple[Any, int, Any]]] = {image: [] for image in sizes}
        left_out, beyond = ordered.left_out.copy(), 0
        for annotation in ordered.dataset["annotations"]:
            box, (height, width) = _corners(annotation["bbox"]), sizes[annotation["image_id"]]
            beyond += int(box[2] > width + _BEYOND or box[3] > height + _BEYOND)
            reason = _unusable(annotation) or ordered.without_mask.get(annotation["id"], "")
            if reason:
                left_out[reason] += 1
            else:
                entry = box, label_of[annotation["category_id"]], annotation["segmentation"]
                found[annotation["image_id"]].append(entry)
        number = sum(map(len, found.values()))
        counts = "".join(f"; left out: {count} {reason}" for reason, count in sorted(left_out.items()))
        logging.info("%s: %d images, %d objects of %d classes%s", self.name, len(sizes), number, len(label_of), counts)
        if beyond > _FEW * len(ordered.dataset["annotations"]):
            logging.warning(
                "%s: %d boxes reach beyond their image: a box is [left, top, width, height]", self.name, beyond
            )
        return {image: _objects(entries) for image, entries in found.items()}


def _unusable(annotation: dict[str, Any]) -> str:
    """Why an object that is evaluated cannot be learned from; "" where it can."""
    if annotation["iscrowd"]:
        return "crowds"
    return "without area" if min(annotation["bbox"][2:]) < _MIN_SIDE else ""


def _corners(box: list[float]) -> tuple[float, float, float, float]:
    left, top, width, height = box
    return left, top, left + width, top + height


def _objects(entries: list[tuple[Any, int, Any]]) -> Objects:
    boxes = np.array([box for box, _, _ in entries], np.float32).reshape(-1, 4)
    labels = np.array([label for _, label, _ in entries], np.int32)
    return Objects(boxes, labels, tuple(mask for _, _, mask in entries))
