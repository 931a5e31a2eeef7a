"""Files of weights: npz, safetensors and PyTorch's, read as data under a limit of size, whoever they come from."""

import contextlib
import hashlib
import json
import os
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from localmim_jax.convert import torch_io
from localmim_jax.errors import ConfigError, DataError, StorageError
from localmim_jax.files import replacing

MAX_BYTES = 32 * 2**30  # of one file's content: ViT-L with its optimizer state is 4 GiB
TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar")
SUFFIXES = (".npz", ".safetensors", *TORCH_SUFFIXES)
NOTE = "localmim_jax"  # the entry that holds `weights.info_to_json`
_MAX_HEADER = 32 * 2**20  # of a safetensors file; real ones are below 1 MiB
_GOLDEN_PREFIX = "param/"
_SHARD = re.compile(r".*-(\d{5})-of-(\d{5})")


def local_path(path: str | os.PathLike[str]) -> Path:
    """The path with "~" resolved.

    Raises:
        ConfigError: it is a web address: a person fetches and checks an untrusted file first.
    """
    text = os.fspath(path)
    if "://" in text:
        raise ConfigError(f"{text} is not on this machine: fetch the file, check where it is from, then give its path")
    return Path(text).expanduser().absolute()


def check_readable(path: Path, shard: bool = False) -> None:
    """Says at once, before anything large is imported or read, what cannot be read; directories are not looked into.

    Args:
        path: of a file, or of a directory.
        shard: whether one part of a sharded model is meant.

    Raises:
        DataError: missing, of an unknown suffix, or in place of weights something that is known to be none.
        ConfigError: torch is needed and missing or too old.
    """
    if path.is_dir():
        return
    if not path.is_file():
        raise DataError(f"{path}: no such file or run directory")
    if path.name.endswith(".index.json"):
        raise DataError(f"{path} is the index of a sharded model: give its directory, {path.parent}")
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path}: unknown suffix; weights are read from {', '.join(SUFFIXES)} or a run directory")
    if not shard and (found := _SHARD.fullmatch(path.stem)):
        raise DataError(
            f"{path} is shard {int(found[1])} of {int(found[2])} of one model: give the directory that holds them all, "
            f"with their index and config.json"
        )
    with open(path, "rb") as handle:
        head = handle.read(64).lstrip().lower()
    if head.startswith(b"version https://git-lfs"):
        raise DataError(f"{path} is a pointer of Git LFS, not the weights: fetch them with git lfs pull")
    if head.startswith((b"<!doctype html", b"<html", b"<?xml")):
        raise DataError(f"{path} is a web page, or damaged: download the file itself")
    check_suffix(path)


def read(path: Path, max_bytes: int = MAX_BYTES, shard: bool = False) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a file by name, and {"info": our own note, "args": a PyTorch file's command line} where present.

    The file's sha256 is logged, to be compared with what its authors publish.

    Args:
        path: the suffix tells the format: one of `SUFFIXES`.
        max_bytes: limit on what the file unpacks to.
        shard: whether one part of a sharded model is meant.

    Raises:
        DataError: missing, unknown, damaged, too large, or holding more than plain arrays.
        ConfigError: torch is needed and missing or too old.
    """
    check_readable(path, shard)
    size = path.stat().st_size
    if size > max_bytes:
        raise DataError(f"{path} has {size:,} bytes, more than the limit of {max_bytes:,}")
    with open(path, "rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    logging.info("reading %s: %s bytes, sha256 %s", path, f"{size:,}", digest)
    match path.suffix.lower():
        case ".npz":
            arrays, extra = _read_npz(path, max_bytes)
        case ".safetensors":
            arrays, extra = _read_safetensors(path)
        case _:
            arrays, extra = torch_io.read(path, max_bytes)
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
            raise DataError(f"{path}: {name[:80]} is of type {array.dtype}; numbers are expected")
    return arrays, extra


def write(path: Path, arrays: Mapping[str, np.ndarray], info: str) -> None:
    """Writes the whole file or leaves what was there.

    Raises:
        ConfigError: an unknown suffix.
        StorageError: the file cannot be written.
    """
    check_suffix(path)
    contiguous: dict[str, Any] = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    with whole(path) as temporary:
        match path.suffix.lower():
            case ".npz":
                with open(temporary, "wb") as handle:  # a path would get another suffix
                    np.savez(handle, **(contiguous | {NOTE: np.array(info)}))
            case ".safetensors":
                from safetensors.numpy import save_file

                save_file(contiguous, temporary, metadata={NOTE: info, "format": "np"})
            case _:
                torch_io.write(temporary, contiguous, info)


def check_suffix(path: Path) -> None:
    """Raises ConfigError where the path's suffix is of no known format, or of PyTorch's without a fitting torch."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path}: unknown suffix; weights are written to {', '.join(SUFFIXES)} or to a directory")
    if path.suffix.lower() in TORCH_SUFFIXES:
        torch_io.check_installed(path)


def check_empty(directory: Path) -> None:
    """Raises ConfigError where something is in the directory that is to be written, or a file has its name."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ConfigError(f"--target={directory} is not an empty directory: give another one")


def write_model_directory(
    directory: Path, arrays: Mapping[str, np.ndarray], texts: Mapping[str, Mapping[str, Any]]
) -> list[Path]:
    """`model.safetensors` and JSON files by name, as timm and Transformers read them, in a new directory.

    Raises:
        ConfigError: the directory has something in it.
        StorageError: it cannot be written.
    """
    from safetensors.numpy import save_file

    check_empty(directory)
    with whole(directory / "model.safetensors") as path:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path, {"format": "pt"})
    for name, content in texts.items():
        with whole(directory / name) as path:
            path.write_text(json.dumps(content, indent=2) + "\n")
    return [directory / name for name in ("model.safetensors", *texts)]


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to, which becomes `path` when the block ends well; makes the directory.

    Raises:
        StorageError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from error


def _read_npz(path: Path, max_bytes: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tests' goldens keep the release's names under `param/`; where there are any, the rest is left alone."""
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(entry.file_size for entry in archive.infolist())
        if total > max_bytes:
            raise DataError(f"{path} unpacks to {total:,} bytes, more than the limit of {max_bytes:,}")
        with np.load(path, allow_pickle=False) as file:
            chosen = [name for name in file.files if name.startswith(_GOLDEN_PREFIX)]
            names = chosen or [name for name in file.files if name != NOTE]
            arrays = {name.removeprefix(_GOLDEN_PREFIX): file[name] for name in names}
            extra = {"info": str(file[NOTE])} if NOTE in file.files else {}
            if objects := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
                raise ValueError(f"{objects[0][:80]} is not an array")
    except DataError:
        raise
    except Exception as error:  # damaged bytes can raise anything
        if "allow_pickle" in str(error):
            raise DataError(f"{path} holds Python objects, which could run code; only plain arrays are read") from error
        raise _damaged(path, "npz", error) from error
    return arrays, extra


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    from safetensors import safe_open

    with open(path, "rb") as handle:
        head = handle.read(8)
    header = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
    if header > _MAX_HEADER:
        raise DataError(f"{path} states a header of {header:,} bytes, more than the limit of {_MAX_HEADER:,}")
    try:
        with safe_open(path, framework="np") as file:
            metadata, names = file.metadata() or {}, file.keys()
            arrays = {name: file.get_tensor(name) for name in names}
    except Exception as error:  # damaged bytes can raise anything
        raise _damaged(path, "safetensors", error) from error
    return arrays, {"info": metadata[NOTE]} if NOTE in metadata else {}


def _damaged(path: Path, kind: str, error: Exception) -> DataError:
    reason = " ".join(str(error).split())[:160]
    return DataError(f"{path} is damaged, or no {kind} file ({type(error).__name__}: {reason})")
