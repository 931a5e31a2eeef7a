"""Proof that a checkpoint is whole: `manifest.json` lists every file of its directory with size and sha256.

It is written last, so a step counts only once its manifest exists. It contains a digest of itself.
"""

import dataclasses
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from localmim_jax import faults
from localmim_jax.errors import ConfigError, StorageError
from localmim_jax.files import read_json, replacing, sync_directory

NAME = "manifest.json"
FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The contents of one checkpoint directory.

    Attributes:
        step: training step of the state.
        files: path inside the directory -> (bytes, sha256 in hexadecimal).
        score: score of the best-checkpoint rule, higher is better; None before or without an evaluation of this step.
    """

    step: int
    files: dict[str, tuple[int, str]]
    score: float | None = None


def exists(directory: Path) -> bool:
    """Whether the checkpoint in this directory was published."""
    return (directory / NAME).is_file()


def publish(directory: Path, step: int) -> Manifest:
    """Hashes and syncs every file of a finished checkpoint, then writes the manifest.

    One rename puts the manifest in place. A process killed before it leaves a directory that does not count.

    Raises:
        OSError: a file could not be read, or the manifest not written.
    """
    paths = [path for path in _files(directory) if path.name not in (NAME, NAME + ".tmp")]
    with ThreadPoolExecutor(max_workers=4) as pool:
        hashes = list(pool.map(lambda path: _hash(path, sync=True), paths))
    files = {path.relative_to(directory).as_posix(): entry for path, entry in zip(paths, hashes, strict=True)}
    manifest = Manifest(step, files)
    _write(directory, manifest)
    for folder in (*{path.parent for path in paths}, directory, directory.parent):
        sync_directory(folder)
    return manifest


def rate(directory: Path, score: float) -> None:
    """Replaces the score in the manifest of a published checkpoint. A crash leaves the old manifest or the new one.

    Raises:
        StorageError: the manifest is missing or damaged.
        OSError: it cannot be written.
    """
    manifest = read(directory)
    if manifest.score != score:
        _write(directory, dataclasses.replace(manifest, score=score))
        sync_directory(directory)


def read(directory: Path) -> Manifest:
    """The manifest of a checkpoint, checked against its own digest. The files are not read.

    Raises:
        StorageError: it is missing or damaged.
        ConfigError: its format is newer than this version supports; it is not damaged.
    """
    try:
        body: dict[str, Any] = read_json(directory / NAME)
        digest = body.pop("digest")
        whole, later = digest == _digest(body), body["format"] > FORMAT
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(f"{directory / NAME} cannot be read ({_reason(error)})") from error
    if not whole:
        raise StorageError(f"{directory / NAME} does not have the digest it states")
    if later:
        raise ConfigError(
            f"{directory} has checkpoint format {body['format']}, this version reads up to {FORMAT}; update the package"
        )
    files = {name: (entry["bytes"], entry["sha256"]) for name, entry in body["files"].items()}
    return Manifest(body["step"], files, body["score"])


def verify(directory: Path) -> Manifest:
    """The manifest, after the size and hash of every file were compared with it.

    Raises:
        StorageError: a file is missing, or its size or content differs; names the first such file.
    """
    manifest = read(directory)
    with ThreadPoolExecutor(max_workers=4) as pool:
        checks = pool.map(lambda item: _difference(directory / item[0], *item[1]), manifest.files.items())
        for difference in checks:
            if difference:
                raise StorageError(difference)
    return manifest


def _write(directory: Path, manifest: Manifest) -> None:
    body = {
        "format": FORMAT,
        "step": manifest.step,
        "score": manifest.score,
        "files": {name: {"bytes": size, "sha256": digest} for name, (size, digest) in sorted(manifest.files.items())},
    }
    with replacing(directory / NAME) as temporary:
        temporary.write_text(json.dumps({**body, "digest": _digest(body)}, indent=1))
        faults.crash_at("before_publish", manifest.step)


def _difference(path: Path, size: int, digest: str) -> str:
    try:
        found_size, found_digest = _hash(path)
    except OSError as error:
        return f"{path} cannot be read ({_reason(error)})"
    if found_size != size:
        return f"{path} has {found_size} bytes instead of {size}"
    return "" if found_digest == digest else f"{path} has changed since it was written (sha256 differs)"


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def _hash(path: Path, sync: bool = False) -> tuple[int, str]:
    with open(path, "rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
        if sync:
            os.fsync(handle.fileno())
        return os.fstat(handle.fileno()).st_size, digest


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else f"{type(error).__name__}: {error}"
