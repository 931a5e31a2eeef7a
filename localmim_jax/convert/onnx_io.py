"""ONNX files, written through jax2onnx, the maintained exporter from JAX, and checked with onnxruntime."""

import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from localmim_jax.convert import files
from localmim_jax.errors import ConfigError, DataError

SUFFIX = ".onnx"
INPUT = "pixel_values"
TOLERANCE = 1e-3  # of the largest value; ViT and Swin were within 1e-5
_INSTALL = "pip install 'localmim-jax[onnx]' && pip install --no-deps jax2onnx"


def check_installed(path: Path) -> None:
    """Raises ConfigError where jax2onnx or onnxruntime is missing, before a model is read for them."""
    missing = [name for name in ("jax2onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(_needed(path, ", ".join(missing)))


def _needed(path: Path, missing: str) -> str:
    return f"{path}: {missing} is missing, which {SUFFIX} files need: {_INSTALL}"


def write(path: Path, function: Callable[[jax.Array], jax.Array], shape: tuple[int, int, int], output: str) -> float:
    """Writes `function` for any number of images, then compares it with what onnxruntime computes from the file.

    Args:
        path: of the file, which replaces what was there.
        function: float32 [b, c, h, w] -> float32 [b, ...], without randomness.
        shape: (c, h, w).
        output: its name in the file; the input's is `INPUT`.

    Returns:
        The largest difference on two random images.

    Raises:
        ConfigError: jax2onnx or onnxruntime is missing.
        DataError: the file does not compute what the model does.
        StorageError: it cannot be written.
    """
    try:
        levels = {name: logging.getLogger(name).level for name in ("jax2onnx", "onnx_ir")}
        for name in levels:  # they warn of their own examples' dependencies, with tracebacks
            logging.getLogger(name).setLevel(logging.CRITICAL)
        import onnxruntime
        from jax2onnx import to_onnx
    except ImportError as error:
        # With its dependencies, jax2onnx would replace orbax-checkpoint by one that is too old for this project.
        raise ConfigError(_needed(path, error.name or str(error))) from error
    model = to_onnx(function, [("batch", *shape)], input_names=[INPUT], output_names=[output])
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    with files.whole(path) as temporary:
        temporary.write_bytes(model.SerializeToString())
    images = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    (found,) = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {INPUT: images})
    expected = np.asarray(jax.jit(function)(images))
    difference = float(np.abs(found - expected).max())
    if not difference <= TOLERANCE * float(np.abs(expected).max()):
        path.unlink()
        raise DataError(f"{path}: onnxruntime gives another result ({difference:.1e} apart): not kept")
    return difference
