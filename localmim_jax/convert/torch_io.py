"""PyTorch files, the only place that imports torch. A file is data: nothing in it is ever executed.

`torch.load` runs with `weights_only` and an allow-list of `argparse.Namespace` alone (the authors' files hold their
command line), on a torch without the known holes of that mode, under a limit of size.
"""

import argparse
import importlib.metadata
import importlib.util
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from localmim_jax.errors import ConfigError, DataError

TORCH_FLOOR = (2, 10)  # earlier ones can be made to run code in spite of weights_only (CVE-2025-32434, CVE-2026-24747)
_STATE_KEYS = ("model", "state_dict")
_MISSING = (
    "PyTorch files need torch: pip install 'localmim-jax[torch]', or convert the file to npz or safetensors elsewhere"
)


def read(path: Path, max_bytes: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tensors of a checkpoint by name, and what else of use lies beside them.

    Args:
        path: a file written by `torch.save`: `dict(model=..., ...)`, `dict(state_dict=..., ...)` or the tensors alone.
        max_bytes: limit on the file's content and on the tensors made from it.

    Returns:
        (name -> array; bfloat16 becomes float32), {"args": the command line's values, "info": our own note}, each
        only where present.

    Raises:
        ConfigError: no torch, or one older than `TORCH_FLOOR`.
        DataError: the file is damaged, too large, holds more than plain data, or holds no tensors.
    """
    torch = _import_torch()
    _check_zip(path, max_bytes)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # unpickling damaged bytes can raise anything
        raise DataError(f"{path}: {_reason(error)}") from error
    if not isinstance(content, Mapping):
        raise DataError(f"{path} holds a {type(content).__name__} instead of a dict of tensors")
    states = [content[key] for key in _STATE_KEYS if isinstance(content.get(key), Mapping)]
    state = states[0] if states else content
    names = [name for name in state if isinstance(name, str) and isinstance(state[name], torch.Tensor)]
    others = [str(name)[:60] for name in state if name not in set(names)]
    if not names or (states and others):
        what = f"entries that are no tensors: {', '.join(others[:5])}" if names else "no tensors"
        raise DataError(f"{path} holds {what}; a state dict, or a dict with one under 'model', is expected")
    total = sum(state[name].numel() * state[name].element_size() for name in names)
    if total > max_bytes:  # a tiny storage can be declared as a huge tensor
        raise DataError(f"{path} unfolds to {total:,} bytes of tensors, more than the limit of {max_bytes:,}")
    arrays = {name: _to_numpy(torch, path, name, state[name]) for name in names}
    extra: dict[str, Any] = {}
    if states and isinstance(content.get("args"), argparse.Namespace):
        extra["args"] = dict(vars(content["args"]))
    if states and isinstance(content.get("localmim_jax"), str):
        extra["info"] = content["localmim_jax"]
    return arrays, extra


def write(path: Path, arrays: Mapping[str, np.ndarray], info: str) -> None:
    """Writes `{"model": tensors, "localmim_jax": info}`, which the release's and timm's loaders understand."""
    torch = _import_torch()
    model = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    torch.save({"model": model, "localmim_jax": info}, path)


def check_installed(path: Path) -> None:
    """Raises ConfigError where torch is missing or too old for this file, without loading it, which takes seconds."""
    try:
        version = importlib.metadata.version("torch") if importlib.util.find_spec("torch") else None
    except (ValueError, importlib.metadata.PackageNotFoundError):
        version = None
    if version is None:
        raise ConfigError(f"{path}: {_MISSING}")
    _check_version(version)


def _import_torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise ConfigError(_MISSING) from error
    _check_version(torch.__version__)
    return torch


def _check_version(text: str) -> None:
    version = tuple(map(int, re.findall(r"\d+", text)[:2]))
    if version < TORCH_FLOOR:
        floor = ".".join(map(str, TORCH_FLOOR))
        raise ConfigError(f"torch {text} cannot read untrusted files safely: pip install --upgrade 'torch>={floor}'")


def _check_zip(path: Path, max_bytes: int) -> None:
    if not zipfile.is_zipfile(path):
        return  # the older format, or damaged: torch will tell
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error})") from error
    if total > max_bytes:
        raise DataError(f"{path} unpacks to {total:,} bytes, more than the limit of {max_bytes:,}")


def _to_numpy(torch: Any, path: Path, name: str, tensor: Any) -> np.ndarray:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.device.type != "cpu":
        raise DataError(f"{path}: {name[:80]} is not a plain dense tensor")
    tensor = tensor.detach()
    try:
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy().copy()
    except TypeError as error:
        raise DataError(f"{path}: {name[:80]} has the type {tensor.dtype}, which numpy does not know") from error


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if found := re.search(r"(?:Unsupported global: GLOBAL|GLOBAL) ([\w.]+)", text):
        return (
            f"it holds a {found[1]}, which is more than data and could run code; nothing was executed. If you trust "
            "the file, save its tensors alone"
        )
    return f"damaged, or not a PyTorch file ({type(error).__name__}: {text.split('. ')[0][:160]})"
