"""What a segmentation dataset is: images with a class for every pixel."""

import abc
from typing import Any

import numpy as np

from localmim_jax.data.decode import DecodeError, image_size
from localmim_jax.data.index_mask import decode_indices
from localmim_jax.data.source import Source
from localmim_jax.errors import DataError
from localmim_jax.segmentation.numbering import Numbering, UnknownValue


class MaskSource(Source):
    """A source whose examples have a mask: {"image": bytes or uint8 [h, w, 3], "mask": uint8 [h, w]}.

    Masks hold labels, 0 to num_classes - 1, or `IGNORED`.

    Attributes:
        numbering: values of the stored masks.
    """

    numbering: Numbering

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Raises DecodeError where a file cannot be read, DataError where a mask names a class that does not exist."""
        image, mask = self.read(index)
        return {"image": image, "mask": self.labels(index, stored_values(mask))}

    def image(self, index: int) -> bytes | np.ndarray:
        return self.read(index)[0]

    @abc.abstractmethod
    def read(self, index: int) -> tuple[bytes | np.ndarray, bytes | np.ndarray]:
        """(image, mask), encoded or as arrays. Raises DecodeError."""

    def size_of(self, index: int) -> tuple[int, int]:
        """(h, w) of an image in pixels. Raises DataError with its name where it cannot be told."""
        try:
            return image_size(self.read(index)[0])
        except DecodeError as error:
            raise DataError(f"{self.name_of(index)}: {error}; repair or remove it") from error

    def stored(self, labels: np.ndarray) -> np.ndarray:
        """uint8 labels as this dataset stores them in its masks."""
        return self.numbering.stored(labels)

    def labels(self, index: int, values: np.ndarray) -> np.ndarray:
        """uint8 labels [h, w] of the values of an example's mask. Raises DataError where one stands for no class."""
        try:
            return self.numbering.labels(values)
        except UnknownValue as error:
            raise DataError(
                f"the mask of {self.name_of(index)} has the value {error}, and {self.num_classes} classes are listed: "
                f"{self.numbering.describe()}; list the classes, or give their values with data.mask_values"
            ) from error


def stored_values(mask: bytes | np.ndarray) -> np.ndarray:
    """The values of a mask, encoded or not: int32 [h, w]. Raises DecodeError."""
    try:
        return decode_indices(mask) if isinstance(mask, bytes) else mask.astype(np.int32)
    except DecodeError as error:
        raise DecodeError(f"its mask: {error}") from error


def sizes_differ(image: tuple[int, ...], mask: tuple[int, ...]) -> str:
    return f"the image is {image[0]} x {image[1]} pixels (h x w) and its mask {mask[0]} x {mask[1]}: make them equal"
