"""Images in the IDX format of MNIST, such as Fashion-MNIST, KMNIST and EMNIST: four files in a folder."""

import gzip
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from localmim_jax.data.fingerprint import digest
from localmim_jax.data.source import Source
from localmim_jax.errors import DataError

_TEST = ("t10k", "test")
_SPLITS = {"train": ("train",), "test": _TEST, "validation": _TEST, "val": _TEST}
_UINT8 = 0x08  # the format's code of the one element type that the family uses
_LAYOUT = "expected train-images-idx3-ubyte, train-labels-idx1-ubyte and the same with t10k, each gzipped or not"


class IdxSource(Source):
    """One split of a dataset of the MNIST family, in memory.

    Labels are optional. Where they exist, they number the classes from 0.

    Args:
        path: folder of the files, with any prefix in their names (`emnist-letters-train-images-idx3-ubyte.gz`).
        split: "train", or "test" (also "val" and "validation") for the files of `t10k` or `test`.

    Raises:
        DataError: no such folder, file or split; a damaged file; images and labels that differ in number.

    Source: the format is described in LeCun, Cortes and Burges, "The MNIST database of handwritten digits" (1998).
    """

    def __init__(self, path: str, split: str = "train"):
        self.name = f"idx:{path}[{split}]"
        root = Path(path).expanduser()
        if not root.is_dir():
            raise DataError(f"idx:{path} is not a folder; {_LAYOUT}")
        if split not in _SPLITS:
            raise DataError(f"{self.name}: the MNIST family has the splits train and test")
        file = _find(root, split, "images")
        if file is None:
            raise DataError(f"{self.name} has no file of images; {_LAYOUT}")
        self._images = read_idx(file)
        if self._images.ndim not in (3, 4):
            raise DataError(f"{file} has {self._images.ndim} dimensions; images have 3, or 4 with channels")
        labels = _find(root, split, "labels")
        self._labels = None if labels is None else read_idx(labels)
        if self._labels is not None:
            if self._labels.shape != self._images.shape[:1]:
                raise DataError(f"{file.name} has {len(self._images)} images, {labels} has {self._labels.shape} labels")
            self.num_classes = int(self._labels.max()) + 1 if len(self._labels) else 0
            self.class_names = tuple(map(str, range(self.num_classes)))

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = self._images[index]
        label = {} if self._labels is None else {"label": int(self._labels[index])}
        return {"image": image if image.ndim == 3 else image[..., None], **label}

    def all_labels(self) -> np.ndarray:
        return super().all_labels() if self._labels is None else self._labels.astype(np.int64)

    def fingerprint(self) -> str:
        labels = b"" if self._labels is None else self._labels.tobytes()
        return digest(self._images.shape, self._images.tobytes(), labels)

    def key_of(self, index: int) -> str:
        return str(index)


def read_idx(path: Path) -> np.ndarray:
    """The uint8 array of an IDX file, gzipped or not.

    Raises:
        DataError: the file cannot be read, is of another format or type, or does not have the size that it states.
    """
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}): copy it again") from error
    if len(data) < 4 or data[:2] != b"\x00\x00":
        raise DataError(f"{path} is not an IDX file: it must begin with two zero bytes")
    code, dimensions = data[2], data[3]
    if code != _UINT8:
        raise DataError(f"{path} holds elements of type 0x{code:02x}; only uint8 (0x08) is read")
    start = 4 + 4 * dimensions
    if len(data) < start:
        raise DataError(f"{path} ends within its header: copy it again")
    shape = struct.unpack(f">{dimensions}I", data[4:start])
    size = int(np.prod(shape, dtype=object))
    if size != len(data) - start:
        raise DataError(f"{path} states {shape}, {size} bytes, and holds {len(data) - start}: copy it again")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _find(root: Path, split: str, what: str) -> Path | None:
    """The file of a split whose name has `what` and `idx` in it; None where there is none."""
    found = sorted(
        path
        for path in root.iterdir()
        if what in path.name
        and "idx" in path.name
        and any(part in path.name for part in _SPLITS[split])
        and path.suffix in ("", ".gz")
        and path.is_file()
    )
    names = {path.name.removesuffix(".gz") for path in found}
    if len(names) > 1:
        raise DataError(f"{root} holds {', '.join(sorted(names))} for {split} {what}: keep one dataset in a folder")
    return found[0] if found else None
