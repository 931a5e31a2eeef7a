"""Which images with objects a config names: COCO's format, generated shapes or noise; whether two splits fit."""

from typing import Any

import numpy as np

from localmim_jax.data import check
from localmim_jax.data.check import readable_size
from localmim_jax.data.source import announced
from localmim_jax.detection.coco import CocoSource
from localmim_jax.detection.source import DetectionSource, Objects
from localmim_jax.errors import DataError


class FakeDetection(DetectionSource):
    """Noise with rectangles for objects, landscape and portrait: measures everything but the reading of images.

    An image has up to four objects, and `max_objects` places for them.
    """

    def __init__(
        self, num_examples: int, num_classes: int, image_size: tuple[int, int], split: str, max_objects: int = 4
    ):
        self.name = f"fake[{split}]"
        self.num_classes = num_classes
        self.class_names = tuple(f"fake {i}" for i in range(num_classes))
        self.category_ids = tuple(range(1, num_classes + 1))
        self.max_objects = max_objects
        self._num_examples, self._image_size = num_examples, image_size

    def __len__(self) -> int:
        return self._num_examples

    def size_of(self, index: int) -> tuple[int, int]:
        return self._image_size if index % 3 else self._image_size[::-1]

    def objects(self, index: int) -> Objects:
        rng = np.random.default_rng((1, index))
        (h, w), count = self.size_of(index), index % (min(self.max_objects, 4) + 1)
        side = rng.uniform(0.2, 0.5, (count, 2)) * (w, h)
        corner = rng.uniform(0, 1, (count, 2)) * ((w, h) - side)
        boxes = np.concatenate([corner, corner + side], axis=1).astype(np.float32)
        labels = rng.integers(0, len(self.class_names), count).astype(np.int32)
        return Objects(boxes, labels, tuple([[a, b, c, b, c, d, a, d]] for a, b, c, d in boxes.tolist()))

    def read(self, index: int) -> np.ndarray:
        return np.random.default_rng((2, index)).integers(0, 256, (*self.size_of(index), 3), np.uint8)

    def image_id(self, index: int) -> int:
        return index + 1

    def key_of(self, index: int) -> str:
        return str(index)

    def dataset(self) -> dict[str, Any]:
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index in range(len(self)):
            (h, w), objects, image = self.size_of(index), self.objects(index), self.image_id(index)
            images.append({"id": image, "file_name": str(index), "height": h, "width": w})
            for box, label, polygons in zip(objects.boxes.tolist(), objects.labels, objects.segmentations, strict=True):
                width, height = box[2] - box[0], box[3] - box[1]
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image,
                        "category_id": self.category_ids[label],
                        "bbox": [*box[:2], width, height],
                        "area": width * height,
                        "iscrowd": 0,
                        "segmentation": polygons,
                    }
                )
        return {"info": {}, "images": images, "annotations": annotations, "categories": self.categories()}


def open_detection(
    name: str,
    split: str,
    data_dir: str = "",
    *,
    skip_empty: bool = False,
    image_size: tuple[int, int] = (800, 1344),
    fake_examples: int = 117266,
    fake_classes: int = 80,
    fake_objects: int = 4,
) -> DetectionSource:
    """The dataset that a config names: "coco:<folder>", "shapes" (generated on first use) or "fake".

    Raises:
        DataError: it is missing, empty or not in COCO's format.
    """
    kind, _, rest = name.partition(":")
    if kind == "coco" and rest:
        return announced(CocoSource(rest, split, skip_empty))
    if name == "shapes":
        from localmim_jax.detection import shapes  # imports TFDS, which takes seconds

        return CocoSource(str(shapes.prepare(data_dir)), split, skip_empty)
    if name == "fake":
        return FakeDetection(fake_examples, fake_classes, image_size, split, max(1, fake_objects))
    raise DataError(f'data.name is {name!r}; detection reads "coco:<folder>", "shapes" or "fake"')


def require_known_classes(train: DetectionSource, other: DetectionSource) -> None:
    """Raises `DataError` where `other` has a category that training has not, or calls it by another name."""
    known = dict(zip(train.category_ids, train.class_names, strict=True))
    wrong = [
        f"{number} ({name})"
        for number, name in zip(other.category_ids, other.class_names, strict=True)
        if known.get(number) != name
    ]
    if wrong:
        raise DataError(f"{other.name} has categories that differ from those of {train.name}: {', '.join(wrong[:5])}")


def require_every_image(source: DetectionSource) -> None:
    """Raises `DataError` where files are missing: an evaluation, which leaves none out, would end in the middle."""
    missing = source.missing()
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"{source.name} lacks {missing[0]}{more}; an evaluation needs every image: restore it")


def check_evaluated(source: DetectionSource) -> None:
    """Raises `DataError` where an image cannot be evaluated, or has another size than its annotations say."""

    def look(index: int) -> None:
        found, told = readable_size(source.read(index)), source.size_of(index)
        if found != told:
            turned = ", because its EXIF data turn it," if found == told[::-1] else ""
            raise DataError(
                f"the image is {found[0]} x {found[1]} pixels (h x w){turned} and the annotations say "
                f"{told[0]} x {told[1]}: make them equal"
            )

    if not isinstance(source, FakeDetection):
        check.check_evaluated(source, look)
