"""Undecodable examples: each is listed once, and too many of them stop the run."""

import fcntl
import math
import threading
from pathlib import Path
from typing import Any

from absl import logging

from localmim_jax.errors import DataError, StorageError


class BadExamples:
    """The undecodable examples of one source, as a run finds them. Threads may share it, and it can be pickled.

    With a file, that file is the state: one line "id <tab> name <tab> reason" each, also those of an earlier part of
    the run and of other processes of this machine. Without one, this process counts its own.

    Args:
        source: name of the source, for messages.
        num_examples: number of examples of the source.
        max_fraction: fraction of them that may be bad; the limit is rounded up to whole examples.
        path: file of the list; None for none.
    """

    def __init__(self, source: str, num_examples: int, max_fraction: float, path: Path | None = None):
        self._source, self._num_examples, self._max_fraction = source, num_examples, max_fraction
        self._limit = math.ceil(max_fraction * num_examples - 1e-9)
        self._path = path
        self._ids: set[int] = set()
        self._offset = 0  # how much of the file is in _ids
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def add(self, index: int, name: str, reason: str) -> None:
        """Adds one bad example; adding it again does nothing.

        Raises:
            DataError: with it there are more than the limit.
            StorageError: the list cannot be written.
        """
        with self._lock:
            if index not in self._ids:
                line = "\t".join((str(index), *(" ".join(text.split()) for text in (name, reason))))
                new = self._share(self._path, index, line) if self._path else True
                self._ids.add(index)
                if new:
                    logging.warning("cannot decode example %d, %s: %s", index, name, reason)
            if len(self._ids) > self._limit:
                raise DataError(self._too_many(name, reason))

    def _share(self, path: Path, index: int, line: str) -> bool:
        """Reads what others have added, then adds the line unless somebody has; whether it was added."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.seek(self._offset)
                for known in file.read().splitlines():
                    number = known.split(b"\t", 1)[0]
                    if number.isdigit() and len(number) < 19 and int(number) < self._num_examples:  # or it is damaged
                        self._ids.add(int(number))
                new = index not in self._ids
                if new:
                    file.write(line.encode(errors="replace") + b"\n")
                self._offset = file.tell()
        except OSError as error:
            raise StorageError(f"{path} cannot be written ({error.strerror}): free disk space there") from error
        return new

    def _too_many(self, name: str, reason: str) -> str:
        where = f"they are listed in {self._path}" if self._path else f"the last is {name} ({reason})"
        return (
            f"{len(self._ids)} of the {self._num_examples} images of {self._source} cannot be decoded, and "
            f"data.max_bad_fraction={self._max_fraction:g} allows {self._limit}; {where}: repair or remove them"
            f"{' and delete that list' if self._path else ''}, or raise data.max_bad_fraction"
        )
