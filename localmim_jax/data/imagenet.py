"""ImageNet's validation images, which come in one flat folder without labels in their names, in one folder a class."""

import csv
import os
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from localmim_jax.errors import DataError, StorageError

_IMAGE = re.compile(r"(ILSVRC2012_val_\d{8})\.jpe?g", re.IGNORECASE)
_SYNSET = re.compile(r"n\d{8}")
FORMATS = (
    "it must be ILSVRC2012_validation_ground_truth.txt (numbers, with --meta), LOC_val_solution.csv, or a text file "
    "with one synset such as n01440764 a line"
)


def read_labels(file: Path, meta: Path | None = None) -> dict[str, str]:
    """{"ILSVRC2012_val_00000001": "n01751748", ...} of a list of labels.

    Args:
        file: Kaggle's LOC_val_solution.csv; the development kit's ILSVRC2012_validation_ground_truth.txt, numbers in
            the order of the images; or synsets in that order.
        meta: the development kit's meta.mat, or lines "number synset", for the numbers of the second.

    Raises:
        DataError: it cannot be read or is none of these; says the line.
    """
    lines = _lines(file)
    if lines and lines[0].startswith("ImageId"):
        labels = {}
        for number, row in enumerate(csv.reader(lines[1:]), start=2):
            synset = row[1].split()[0] if len(row) > 1 and row[1].split() else ""
            if not _SYNSET.fullmatch(synset):
                raise DataError(f"{file}, line {number}: no synset; {FORMATS}")
            labels[row[0]] = synset
        return labels
    names = _synsets(meta) if lines and lines[0].isdigit() else None
    labels = {}
    for number, line in enumerate(lines, start=1):
        synset = line if names is None else names.get(line, "")
        if not _SYNSET.fullmatch(synset):
            known = "no synset" if names is None else f"{meta} has no number {line}"
            raise DataError(f"{file}, line {number}: {known}; {FORMATS}")
        labels[f"ILSVRC2012_val_{number:08d}"] = synset
    if not labels:
        raise DataError(f"{file} is empty; {FORMATS}")
    return labels


def _synsets(meta: Path | None) -> dict[str, str]:
    """{"1": "n02119789", ...}"""
    if meta is None:
        raise DataError("these labels are numbers of the development kit: give its data/meta.mat as --meta too")
    if meta.suffix == ".mat":
        from scipy.io import loadmat

        try:
            table = loadmat(meta, squeeze_me=True)["synsets"]
            return {str(int(row["ILSVRC2012_ID"])): str(row["WNID"]) for row in table}
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            raise DataError(f"{meta} is not the development kit's meta.mat ({type(error).__name__})") from error
    pairs = [line.split()[:2] for line in _lines(meta)]
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def _lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in file.read_text().splitlines() if line.strip()]
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not a text file; {FORMATS}") from error


def sort_validation(images: Path, labels: dict[str, str], output: Path, move: bool = False) -> Counter[str]:
    """Puts every image into the folder of its class below `output`; done again, it adds only what is missing.

    Args:
        images: folder with ILSVRC2012_val_*.JPEG, flat.
        labels: synset of each image, by its name without suffix.
        output: folder of the class folders; made if needed.
        move: moves the images; else they are linked, or copied where the file system has no links.

    Returns:
        The number of images of each class.

    Raises:
        DataError: an image has no label, or a label no image. Nothing has been written then.
        StorageError: an image cannot be put into its place.
    """
    try:
        found = {match[1]: entry for entry in os.listdir(images) if (match := _IMAGE.fullmatch(entry))}
    except OSError as error:
        raise DataError(f"{images} cannot be listed: {error.strerror}") from error
    sorted_before = {name for name, synset in labels.items() if _placed(output, synset, name)}
    _require_same(images, sorted(set(found) - set(labels)), "have no label")
    _require_same(images, sorted(set(labels) - set(found) - sorted_before), "are labeled, but are not there")
    for name in sorted(set(labels) - sorted_before):
        source, target = images / found[name], output / labels[name] / found[name]
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _put(source, target, move)
        except OSError as error:
            raise StorageError(f"{target} cannot be written: {error.strerror or error}") from error
    return Counter(labels.values())


def _placed(output: Path, synset: str, name: str) -> bool:
    return any((output / synset / f"{name}{suffix}").is_file() for suffix in (".JPEG", ".jpeg", ".jpg", ".JPG"))


def _put(source: Path, target: Path, move: bool) -> None:
    """Moves or links; across file systems copies. An image under its final name is whole."""
    try:
        (os.rename if move else os.link)(source, target)
    except OSError:
        part = target.with_name(f".{target.name}.part")
        shutil.copy2(source, part)
        os.replace(part, target)
        if move:
            source.unlink()


def _require_same(images: Path, names: Sequence[str], problem: str) -> None:
    if names:
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
        raise DataError(
            f"{images}: {len(names):,} images {problem} ({shown}): check that images and labels are complete"
        )
