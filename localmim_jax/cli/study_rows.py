"""The CSV of `localmim study`: one row a cell, written whole or not at all, by one process at a time."""

import csv
import fcntl
from collections.abc import Mapping
from pathlib import Path

from localmim_jax.cli import study_runs
from localmim_jax.errors import DataError, StorageError
from localmim_jax.files import replacing

Key = tuple[str, ...]
Row = Mapping[str, str]

_ORDER = (study_runs.BACKBONES, study_runs.METHODS, ("none", *study_runs.LENGTHS))


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV in a fixed order; [] where there is no file.

    Raises:
        DataError: it cannot be read, or is no CSV of a study.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    for number, row in enumerate(rows, start=2):
        if set(row) != set(study_runs.COLUMNS) or None in row.values():
            raise DataError(f"{path}, line {number}: the columns must be {', '.join(study_runs.COLUMNS)}")
        place(row, f"{path}, line {number}")
    return sorted(rows, key=place)


def place(row: Row, where: str = "the row") -> tuple[int, ...]:
    """Where a row stands in the file. Raises DataError: it has an unknown name or no number as its seed."""
    try:
        names = zip(study_runs.KEYS, _ORDER, strict=False)
        return (*(order.index(row[key]) for key, order in names), int(row["seed"]))
    except ValueError as error:
        raise DataError(f"{where} is of no run of the study: {[row[key] for key in study_runs.KEYS]}") from error


def update(path: Path, row: Row) -> None:
    """Adds a row, or replaces the one of the same cell. Several processes may do this at the same time.

    Raises:
        StorageError: the file cannot be written.
        DataError: what is there cannot be read.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path.with_name(f".{path.name}.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            rows = {place(old): old for old in read(path)} | {place(row): dict(row)}
            with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, study_runs.COLUMNS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows[key] for key in sorted(rows))
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error
