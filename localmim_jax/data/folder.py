"""Images in a folder, nested or flat, with or without labels: nothing to prepare."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from localmim_jax.data.decode import read_file
from localmim_jax.data.source import Source
from localmim_jax.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
SPLITS = ("train", "val", "validation", "test")

_ALIASES = {"val": "validation", "validation": "val"}
_LAYOUT = (
    f"expected {', '.join(suffix[1:] for suffix in SUFFIXES)} files in it or in folders below it (one per class, if "
    "there are labels), and optionally train/ and val/ on top"
)


class FolderSource(Source):
    """The image files below a folder, sorted by path.

    Where every image lies in a subfolder, the first folder of its path is its class, and labels number the classes in
    sorted order; else there are no labels. Files and folders that start with a dot are skipped; links are followed.

    Args:
        path: the folder. If it holds a folder named after the split ("val" and "validation" are one), that one is read.
        split: "train" also stands for a folder that is not divided.

    Raises:
        DataError: no such folder, no such split, or no images.
    """

    def __init__(self, path: str, split: str = "train"):
        self.name = f"folder:{path}[{split}]"
        self.root = _split_folder(Path(path).expanduser(), split)
        files: list[str] = []
        others: Counter[str] = Counter()
        for name in _walk(self.root, "", ()):
            suffix = os.path.splitext(name)[1].lower()
            if suffix in SUFFIXES:
                files.append(name)
            else:
                others[suffix or "no suffix"] += 1
        if not files:
            found = ", ".join(f"{count} files with {suffix}" for suffix, count in others.most_common(3)) or "no files"
            raise DataError(f"{self.root} holds no images: found {found}; {_LAYOUT}")
        files.sort()
        # A million Python strings would cost several times as much memory, in every worker process.
        self._files = np.array([os.fsencode(name) for name in files])
        tops = [name.partition("/")[0] if "/" in name else "" for name in files]
        self._labels: np.ndarray | None = None
        if "" not in tops:
            self.class_names = tuple(sorted(set(tops)))
            self.num_classes = len(self.class_names)
            numbers = {name: i for i, name in enumerate(self.class_names)}
            self._labels = np.array([numbers[name] for name in tops], np.int32)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        label = {} if self._labels is None else {"label": int(self._labels[index])}
        return {"image": read_file(self.name_of(index)), **label}

    def key_of(self, index: int) -> str:
        return os.fsdecode(bytes(self._files[index]))

    def name_of(self, index: int) -> str:
        return os.path.join(self.root, self.key_of(index))


def _split_folder(root: Path, split: str) -> Path:
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise DataError(f"folder:{root} {what}; {_LAYOUT}")
    for name in (split, _ALIASES.get(split, split)):
        if (root / name).is_dir():
            return root / name
    divided = [name for name in SPLITS if (root / name).is_dir()]
    if split == "train" and not divided:
        return root
    found = f"only {', '.join(f'{name}/' for name in divided)}" if divided else "no split folders"
    raise DataError(f"{root} has no folder {split}/ for split {split!r}: found {found}; make it or change the split")


def _walk(root: Path, inside: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """Paths of all files below root / inside, relative to root, with "/"; `above` guards against circular links."""
    folder = os.path.join(root, inside)
    try:
        status = os.stat(folder)
        entries = list(os.scandir(folder))
    except OSError as error:
        raise DataError(f"{folder} cannot be listed ({error.strerror}): give it read rights") from error
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        name = f"{inside}/{entry.name}" if inside else entry.name
        if entry.is_dir():
            yield from _walk(root, name, (*above, identity))
        else:
            yield name
