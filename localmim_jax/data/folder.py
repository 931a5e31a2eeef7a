"""Images in a folder, nested or flat, with or without labels: nothing to prepare."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from localmim_jax.data.decode import SUFFIXES, read_file
from localmim_jax.data.fingerprint import of_files
from localmim_jax.data.holdout import held_out
from localmim_jax.data.names import composed, some
from localmim_jax.data.source import Source
from localmim_jax.data.splits import divided, find_split, means
from localmim_jax.data.walk import Found, counts, find_files, folders_of
from localmim_jax.errors import DataError, printable

_LAYOUT = (
    f"expected {', '.join(suffix[1:] for suffix in SUFFIXES)} files in it or in folders below it (one per class, if "
    "there are labels), and optionally train/ and val/ on top"
)


class FolderSource(Source):
    """The image files below a folder, sorted by path.

    Where every image lies in a subfolder, the first folder of its path is its class, and labels number the classes in
    sorted order; else there are no labels. A class's name in composed and in decomposed Unicode is one class. See
    `walk.find_files` for what is read.

    Args:
        path: the folder. If it holds a folder for the split (see `splits`), that one is read.
        split: "train" also stands for a folder that is not divided.
        val_fraction: fraction of each class of the training part that is held out as "val" (see `holdout`); 0 for a
            folder that has a validation part.

    Raises:
        DataError: no such folder, no such split, a validation part besides `val_fraction`, or no images.
    """

    def __init__(self, path: str, split: str = "train", val_fraction: float = 0.0):
        self.name = f"folder:{path}[{split}]"
        self.root = _split_folder(Path(path).expanduser(), split, val_fraction)
        found = find_files(self.root)
        if not found.files:
            raise DataError(_no_images(found))
        tops = [composed(name.partition("/")[0]) if "/" in name else "" for name in found.files]
        labels = np.zeros(len(tops), np.int32)
        if "" not in tops:
            self.class_names = tuple(sorted(set(tops)))
            self.num_classes = len(self.class_names)
            numbers = {name: i for i, name in enumerate(self.class_names)}
            labels = np.array([numbers[name] for name in tops], np.int32)
        self.notes = (*found.notes(), *_stray(found, tops))
        # A million Python strings would cost several times as much memory, in every worker process.
        self._files = np.array([os.fsencode(name) for name in found.files])
        if val_fraction and means(split, "train", "val"):
            chosen = held_out(found.files, labels, val_fraction)
            self.notes += tuple(self._unseen(labels, chosen))
            kept = chosen if means(split, "val") else ~chosen
            self._files, labels = self._files[kept], labels[kept]
            if not kept.any():
                raise DataError(f"{self.root} has {len(kept)} image: too few to hold out data.val_fraction of them")
        self._labels = labels if self.class_names else None

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        label = {} if self._labels is None else {"label": int(self._labels[index])}
        return {"image": read_file(self.name_of(index)), **label}

    def all_labels(self) -> np.ndarray:
        return super().all_labels() if self._labels is None else self._labels.astype(np.int64)

    def _unseen(self, labels: np.ndarray, chosen: np.ndarray) -> list[str]:
        """A line on classes with an only image, which is not held out."""
        lacking = [name for i, name in enumerate(self.class_names) if not chosen[labels == i].any()]
        return [f"{self.root}: classes with one image, which is not held out: {some(lacking)}"] if lacking else []

    def fingerprint(self) -> str:
        return of_files(self.root, self._files)

    def key_of(self, index: int) -> str:
        return os.fsdecode(bytes(self._files[index]))

    def name_of(self, index: int) -> str:
        return os.path.join(self.root, self.key_of(index))


def _split_folder(root: Path, split: str, val_fraction: float) -> Path:
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise DataError(f"folder:{root} {what}; {_LAYOUT}")
    folders = folders_of(root)
    if val_fraction and means(split, "train", "val"):
        there = find_split(folders, "val") if divided(folders) else []
        if there:
            raise DataError(f"{root} has {there[0]}/, and data.val_fraction={val_fraction:g}: set that to 0 to use it")
        split = "train"
    chosen = find_split(folders, split)
    if len(chosen) > 1:
        raise DataError(f"{root} has {' and '.join(chosen)} for split {split!r}: give the name of one as the split")
    if chosen and (chosen[0] == split or divided(folders)):
        return root / chosen[0]
    if split == "train" and not divided(folders):
        return root
    found = f"only {some([f'{name}/' for name in folders], 8)}" if divided(folders) else "no split folders"
    hold_out = ", or set data.val_fraction to hold out a part of the training images" if means(split, "val") else ""
    raise DataError(
        f"{root} has no folder {split}/ for split {split!r}: found {found}; make it, or give the name of another "
        f"folder as the split{hold_out}"
    )


def _no_images(found: Found) -> str:
    what = counts(found.skipped) or "no files"
    links = f" and {some([f'{name} ({why})' for name, why in found.unusable.items()])}" if found.unusable else ""
    return f"{found.root} holds no images: found {what}{links}; {_LAYOUT}"


def _stray(found: Found, tops: list[str]) -> list[str]:
    """A line where a few images beside class folders cost the labels of all others."""
    number = Counter(tops)[""]
    if not 0 < number < len(tops):
        return []
    first = next(name for name, top in zip(found.files, tops, strict=True) if not top)
    return [f"{found.root}: {number} images beside the folders ({printable(first)}, ...), so folders are not classes"]
