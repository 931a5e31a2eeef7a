"""Where examples come from: random access by index, so that a batch can be a pure function of seed and step."""

import abc
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from localmim_jax.data.config import NAMES
from localmim_jax.data.decode import DecodeError, Encoded
from localmim_jax.errors import DataError

_SAMPLED = 16  # images whose header is read for a description
_FAKE_CLASSES = 1000


class Source(abc.ABC):
    """A dataset of images, each with an index from 0 to len - 1. Picklable, and safe to read from several threads.

    Attributes:
        name: as in the config, with the split, for messages.
        class_names: names of the labels, () where there are none.
        num_classes: 0 without labels.
        finished: images are arrays of their final size, not to be cropped (the fake source).
    """

    name: str
    class_names: tuple[str, ...] = ()
    num_classes: int = 0
    finished: bool = False

    @property
    def labeled(self) -> bool:
        return self.num_classes > 0

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def __getitem__(self, index: int) -> dict[str, Any]:
        """{"image": encoded bytes or uint8 array [h, w, c], and where labeled "label": int}.

        Raises:
            DecodeError: this one example cannot be read.
        """

    @abc.abstractmethod
    def key_of(self, index: int) -> str:
        """The example's name within the dataset."""

    def name_of(self, index: int) -> str:
        """What a person would look for: a file's path, or the dataset and the key."""
        return f"{self.name}/{self.key_of(index)}"

    def describe(self) -> str:
        """One line: how many images, their classes and sizes, and a few names."""
        picked = sorted({int(i) for i in np.linspace(0, len(self) - 1, min(_SAMPLED, len(self)))})
        sizes = [size for size in map(self._size, picked) if size]
        text = f"{self.name}: {len(self):,} images"
        if self.labeled:
            text += f" of {self.num_classes:,} classes"
        if sizes:
            (low_height, low_width), (high_height, high_width) = np.min(sizes, axis=0), np.max(sizes, axis=0)
            text += f", {low_height} x {low_width}"
            if (low_height, low_width) != (high_height, high_width):
                text += f" to {high_height} x {high_width}"
            text += f" pixels ({len(sizes)} sampled)"
        return f"{text}, such as {', '.join(self.name_of(i) for i in picked[:: max(1, len(picked) // 3)][:3])}"

    def _size(self, index: int) -> tuple[int, int] | None:
        try:
            image = self[index]["image"]
            if isinstance(image, np.ndarray):
                return image.shape[:2]
            encoded = Encoded(image)
        except DecodeError:
            return None
        return encoded.height, encoded.width


class FakeSource(Source):
    """Deterministic noise of the final size, with labels: measures everything but the reading of images."""

    finished = True

    def __init__(self, num_examples: int, image_size: tuple[int, int], channels: int, split: str):
        self.name = f"fake[{split}]"
        self.num_classes = _FAKE_CLASSES
        self.class_names = tuple(f"fake {i}" for i in range(_FAKE_CLASSES))
        self._num_examples = num_examples
        self._shape = (*image_size, channels)
        self._key = zlib.crc32(split.encode())

    def __len__(self) -> int:
        return self._num_examples

    def __getitem__(self, index: int) -> dict[str, Any]:
        noise = np.random.Generator(np.random.Philox(key=self._key, counter=[0, 0, 0, index]))
        image = np.frombuffer(noise.bytes(int(np.prod(self._shape))), np.uint8).reshape(self._shape)
        return {"image": image, "label": index % _FAKE_CLASSES}

    def key_of(self, index: int) -> str:
        return str(index)


def open_source(
    name: str,
    split: str = "train",
    data_dir: str = "",
    *,
    image_size: tuple[int, int] = (224, 224),
    channels: int = 3,
    fake_examples: int = 1281167,
) -> Source:
    """The dataset that a config names; the last three arguments are for "fake" only.

    Raises:
        DataError: it is missing, empty, has no such split, or is stored in a way that cannot be read at random. The
            text says what to do.
    """
    kind, _, rest = name.partition(":")
    if kind == "folder":
        from localmim_jax.data.folder import FolderSource

        source: Source = FolderSource(rest, split)
    elif name == "fake":
        source = FakeSource(fake_examples, image_size, channels, split)
    elif kind == "tfds" or name in ("photos", "digits"):
        from localmim_jax.data import tfds_source

        source = tfds_source.open_tfds(name, split, data_dir)
    else:
        raise DataError(f"no dataset {name!r}; it must be {NAMES}")
    if not len(source):
        raise DataError(f"{source.name} is empty: choose another split or prepare the dataset again")
    return source


def require_labels(source: Source, num_classes: int) -> None:
    """Raises `DataError` unless the source has labels of exactly this many classes."""
    if not source.labeled:
        raise DataError(f"{source.name} has no labels; this task needs one folder, or one label, per class")
    if source.num_classes != num_classes:
        raise DataError(f"{source.name} has {source.num_classes} classes, and the model {num_classes}: make them equal")


def require_same_classes(train: Source, other: Source) -> None:
    """Raises `DataError` unless both sources number the same classes in the same way, naming those that differ."""
    if (train.num_classes, train.class_names) == (other.num_classes, other.class_names):
        return
    extra = _only_in(other.class_names, train.class_names)
    missing = _only_in(train.class_names, other.class_names)
    difference = "; ".join(
        [f"only in {source.name}: {names}" for source, names in ((other, extra), (train, missing)) if names]
        or [f"{train.num_classes} classes in {train.name}, {other.num_classes} in {other.name}, in another order"]
    )
    raise DataError(f"{train.name} and {other.name} do not have the same classes ({difference})")


def _only_in(names: Sequence[str], others: Sequence[str], shown: int = 5) -> str:
    """The first few of `names` that are not among `others`."""
    only = [name for name in names if name not in set(others)]
    return ", ".join(only[:shown]) + (f" and {len(only) - shown} more" if len(only) > shown else "")
