"""What a segmentation dataset is: images with a class for every pixel."""

import abc
from typing import Any

import numpy as np

from localmim_jax.data.decode import DecodeError, decode_indices, image_size
from localmim_jax.data.source import Source
from localmim_jax.errors import DataError

IGNORED = 255  # label of a pixel that no loss and no metric counts


class MaskSource(Source):
    """A source whose examples have a mask: {"image": bytes or uint8 [h, w, 3], "mask": uint8 [h, w]}.

    Masks hold labels, 0 to num_classes - 1, or `IGNORED`.

    Attributes:
        zero_ignored: whether 0 in a stored mask is "no class".
    """

    zero_ignored: bool

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Raises DecodeError where a file cannot be read, DataError where a mask names a class that does not exist."""
        image, mask = self.read(index)
        return {"image": image, "mask": self._labels(index, mask)}

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
        return stored(labels, self.zero_ignored)

    def _labels(self, index: int, mask: bytes | np.ndarray) -> np.ndarray:
        try:
            values = decode_indices(mask) if isinstance(mask, bytes) else mask.astype(np.int32)
        except DecodeError as error:
            raise DecodeError(f"its mask: {error}") from error
        first = 1 if self.zero_ignored else 0
        last = first + self.num_classes - 1
        nothing = (values == IGNORED) | (values < first)
        if (values < 0).any() or (values[~nothing] > last).any():
            worst = int(values.min() if (values < 0).any() else values[~nothing].max())
            raise DataError(
                f"the mask of {self.name_of(index)} has the value {worst}, and {self.num_classes} classes are listed: "
                f"values go from {first} to {last}{', 0 being no class' if first else ''}, or are {IGNORED}"
            )
        return np.where(nothing, IGNORED, values - first).astype(np.uint8)


def stored(labels: np.ndarray, zero_ignored: bool) -> np.ndarray:
    """uint8 labels as a mask has them, `IGNORED` being 0 with `zero_ignored`, and itself without."""
    if not zero_ignored:
        return labels
    return np.where(labels == IGNORED, 0, labels + np.uint8(1)).astype(np.uint8)


def sizes_differ(image: tuple[int, ...], mask: tuple[int, ...]) -> str:
    return f"the image is {image[0]} x {image[1]} pixels (h x w) and its mask {mask[0]} x {mask[1]}: make them equal"
