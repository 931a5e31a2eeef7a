"""What a detection dataset is: images with objects, their boxes, labels and masks."""

import abc
import dataclasses
from typing import Any

import numpy as np

from localmim_jax.data.source import Source


@dataclasses.dataclass(frozen=True)
class Objects:
    """The objects of one image that a detector can learn from.

    Attributes:
        boxes: float32 [n, 4], left, top, right, bottom in pixels.
        labels: int32 [n], from 0.
        segmentations: of each object, COCO's polygons or run lengths.
    """

    boxes: np.ndarray
    labels: np.ndarray
    segmentations: tuple[Any, ...]


class DetectionSource(Source):
    """A source whose examples have objects: {"image": bytes or uint8 [h, w, 3], "size": (h, w), "objects": `Objects`}.

    Attributes:
        category_ids: COCO's id of each label.
        max_objects: the largest number of objects in one image.
    """

    category_ids: tuple[int, ...]
    max_objects: int

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Raises DecodeError where the image cannot be read."""
        return {"image": self.read(index), "size": self.size_of(index), "objects": self.objects(index)}

    def key_of(self, index: int) -> str:
        return str(self.image_id(index))

    @abc.abstractmethod
    def size_of(self, index: int) -> tuple[int, int]:
        """(h, w) in pixels, without reading the image."""

    @abc.abstractmethod
    def objects(self, index: int) -> Objects: ...

    @abc.abstractmethod
    def read(self, index: int) -> bytes | np.ndarray:
        """The encoded image, or uint8 [h, w, 3].

        Raises:
            DecodeError: it cannot be read.
        """

    @abc.abstractmethod
    def image_id(self, index: int) -> int:
        """COCO's id of the image."""

    def missing(self) -> list[str]:
        """Names of the images whose files are not there."""
        return []

    @abc.abstractmethod
    def dataset(self) -> dict[str, Any]:
        """The whole split as COCO's JSON has it."""

    def categories(self) -> list[dict[str, Any]]:
        """COCO's list of categories, in the order of the labels."""
        return [{"id": number, "name": name} for number, name in zip(self.category_ids, self.class_names, strict=True)]
