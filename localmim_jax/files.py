"""Atomic writes: after a crash a file holds its old content or its new content, never a part of either."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from localmim_jax.errors import StorageError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`. The file written there replaces `path` when the block ends without an error.

    The content is on the disk before the rename. `sync_directory` puts the rename there too.

    Raises:
        OSError: the file cannot be written.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_json(path: Path, content: Any, indent: int | None = 2) -> None:
    """Writes the whole file or leaves the old one.

    Raises:
        StorageError: the file cannot be written; names the path and the reason.
    """
    try:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(content, indent=indent) + "\n")
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error


def sync_directory(directory: Path) -> None:
    """Puts the names of a directory's files on the disk. Raises OSError where that fails."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
