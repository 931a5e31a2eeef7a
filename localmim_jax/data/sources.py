"""The datasets that a config can name, those of segmentation and detection apart."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from localmim_jax.data.config import NAMES
from localmim_jax.data.folder import FolderSource
from localmim_jax.data.idx import IdxSource
from localmim_jax.data.source import Source, announced
from localmim_jax.data.storage import default_dir
from localmim_jax.errors import DataError


class FakeSource(Source):
    """Deterministic noise of the final size, with labels: measures everything but the reading of images."""

    passthrough = True

    def __init__(
        self, num_examples: int, image_size: tuple[int, int], channels: int, split: str, num_classes: int = 1000
    ):
        self.name = f"fake[{split}]"
        self.num_classes = num_classes
        self.class_names = tuple(f"fake {i}" for i in range(num_classes))
        self._num_examples = num_examples
        self._shape = (*image_size, channels)
        self._key = zlib.crc32(split.encode())

    def __len__(self) -> int:
        return self._num_examples

    def __getitem__(self, index: int) -> dict[str, Any]:
        noise = np.random.Generator(np.random.Philox(key=self._key, counter=[0, 0, 0, index]))
        image = np.frombuffer(noise.bytes(int(np.prod(self._shape))), np.uint8).reshape(self._shape)
        return {"image": image, "label": index % self.num_classes}

    def key_of(self, index: int) -> str:
        return str(index)


def is_there(name: str, data_dir: str = "") -> bool:
    """Whether a dataset's folder exists, or TFDS has prepared it. Generated datasets always are."""
    kind, _, rest = name.partition(":")
    if kind == "tfds":
        from localmim_jax.data import tfds_source

        try:
            return tfds_source.is_prepared(tfds_source.find_builder(name, default_dir(data_dir)))
        except DataError:
            return False
    return not rest or Path(rest).expanduser().exists()


def open_source(
    name: str,
    split: str = "train",
    data_dir: str = "",
    *,
    image_size: tuple[int, int] = (224, 224),
    channels: int = 3,
    fake_examples: int = 1281167,
    fake_classes: int = 1000,
    val_fraction: float = 0.0,
) -> Source:
    """The dataset that a config names.

    Args:
        name, split, data_dir: as in the config.
        image_size, channels, fake_examples, fake_classes: of "fake".
        val_fraction: of "folder:", see `FolderSource`.

    Raises:
        DataError: it is missing, empty, has no such split, or is stored in a way that cannot be read at random. The
            text says what to do.
    """
    kind, _, rest = name.partition(":")
    if kind == "folder":
        source: Source = FolderSource(rest, split, val_fraction)
    elif kind == "idx":
        source = IdxSource(rest, split)
    elif name == "fake":
        source = FakeSource(fake_examples, image_size, channels, split, fake_classes)
    elif kind == "tfds" or name in ("photos", "digits"):
        from localmim_jax.data import tfds_source  # imports TFDS, which takes seconds

        source = tfds_source.open_tfds(name, split, data_dir)
    elif kind == "python":
        raise DataError(
            f"{name} is an object of a Python program: train and resume with localmim_jax.train(..., dataset=...), or "
            "set data.name to a dataset"
        )
    else:
        raise DataError(f"no dataset {name!r}; it must be {NAMES}")
    if not len(source):
        raise DataError(f"{source.name} is empty: choose another split or prepare the dataset again")
    return announced(source)
