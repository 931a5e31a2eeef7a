"""Small files of a run. Writes are atomic: after a crash a file holds its old content or its new one, never a part.

Reads trust nothing: a damaged file gives a ValueError that says what is wrong with it.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from localmim_jax.errors import StorageError

T = TypeVar("T")

_MAX_DEPTH = 50
_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "a truth value",
    type(None): "null",
}


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


def read_json(path: Path, kind: type[T] = dict) -> T:  # type: ignore[assignment]
    """What `write_json` wrote.

    Args:
        path: the file.
        kind: type of the content: dict or list.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no JSON, has another kind of content, or is nested deeper than anything we write; says which.
    """
    return parse_json(path.read_bytes(), kind)


def parse_json(text: str | bytes, kind: type[T]) -> T:
    """The content of a JSON text. Raises ValueError as `read_json` does."""
    try:
        content = json.loads(text.decode() if isinstance(text, bytes) else text)
    except RecursionError:
        raise ValueError(f"nested more than {_MAX_DEPTH} deep") from None
    except UnicodeDecodeError:
        raise ValueError("not text in UTF-8") from None
    if not isinstance(content, kind):
        raise ValueError(f"{_NAMES[type(content)]} instead of {_NAMES[kind]}")
    inner: list[Any] = [content]
    for _ in range(_MAX_DEPTH):
        inner = [value for item in inner for value in (item.values() if isinstance(item, dict) else item)]
        inner = [value for value in inner if isinstance(value, dict | list)]
        if not inner:
            return content
    raise ValueError(f"nested more than {_MAX_DEPTH} deep")


def read_reports(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The reports in a `metrics.jsonl`, and how many damaged lines are left out.

    A report has "step", an integer from 0, and otherwise numbers, or None where not finite. A last line without an
    end, which a kill leaves or which is being written, is left out and not counted.

    Raises:
        OSError: the file cannot be read.
    """
    *lines, _ = path.read_bytes().split(b"\n")
    entries, damaged = [], 0
    for line in lines:
        try:
            entry = parse_json(line, dict)
        except ValueError:
            entry = {}
        if _is_report(entry):
            entries.append(entry)
        else:
            damaged += 1
    return entries, damaged


def _is_report(entry: dict[str, Any]) -> bool:
    step = entry.get("step")
    if type(step) is not int or step < 0:
        return False
    return all(
        value is None or type(value) is float or (type(value) is int and abs(value) < 2**63) for value in entry.values()
    )


def sync_directory(directory: Path) -> None:
    """Puts the names of a directory's files on the disk. Raises OSError where that fails."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
