"""What `localmim convert` writes besides files of arrays: checkpoints, ONNX, directories of timm and Transformers."""

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from localmim_jax.api import fill_model
from localmim_jax.convert import files, folders, huggingface, onnx_io, timm_folder
from localmim_jax.convert.folders import Pixels
from localmim_jax.convert.weights import Weights, info_to_json
from localmim_jax.engine.checkpoints.write import Checkpointer
from localmim_jax.engine.settings import CheckpointSettings
from localmim_jax.errors import ConfigError, DataError
from localmim_jax.files import write_json
from localmim_jax.models.info import ModelInfo
from localmim_jax.params import merge, unflatten
from localmim_jax.tasks import initialize, inputs, lookup


def write_transformers(source: str, directory: Path, weights: Weights) -> list[str]:
    """The directory that Transformers reads, see `convert.huggingface`; returns lines that say what was written.

    Raises:
        ConfigError: the model cannot be expressed there, or the directory has something in it.
        StorageError: it cannot be written.
    """
    arrays, config, plain_norm = huggingface.export(weights)
    pixels = _pixels(source, config["image_size"], config["num_channels"])
    written = huggingface.write(directory, arrays, config, pixels)
    notes = ["no norm follows the encoder: its layernorm is written with scale 1 and bias 0"] if plain_norm else []
    if pixels is None:
        notes.append(f"no preprocessor is written: it needs 3 channels, and the model has {config['num_channels']}")
    return _folder_lines(directory, f"Transformers' {config['architectures'][0]}", arrays, written, notes)


def write_timm(source: str, directory: Path, weights: Weights) -> list[str]:
    """The directory that timm reads, see `convert.timm_folder`; returns lines that say what was written.

    Raises: as `write_transformers`.
    """
    arrays, config, notes = timm_folder.export(weights)
    channels, *size = config["pretrained_cfg"]["input_size"]
    pixels = _pixels(source, size, channels)
    written = timm_folder.write(directory, arrays, config, pixels)
    if pixels is None:
        notes.append(f"no mean and standard deviation are written: they need 3 channels, and the model has {channels}")
    return _folder_lines(directory, f"timm's {config['architecture']}", arrays, written, notes)


FOLDERS: Mapping[str, Callable[[str, Path, Weights], list[str]]] = {
    "timm": write_timm,
    "transformers": write_transformers,
}


def _folder_lines(
    directory: Path, what: str, arrays: Mapping[str, np.ndarray], written: Sequence[Path], notes: Sequence[str]
) -> list[str]:
    count = sum(array.size for array in arrays.values())
    shown = ", ".join(path.name for path in written)
    line = f"written  {directory}: {what}, {len(arrays)} arrays, {count:,} numbers: {shown}"
    return [line, *(f"note     {note}" for note in notes)]


def write_onnx(source: str, path: Path, weights: Weights, part: str, config: ConfigDict | None) -> str:
    """The model as an ONNX file, see `convert.onnx_io`; returns a line that says what was written.

    Raises:
        ConfigError: no config, weights that do not fill its model, or a detector.
        DataError, StorageError: see `onnx_io.write`.
    """
    if config is None:
        place = Path(source).expanduser().absolute()
        if not place.is_dir() or (place / initialize.CONVERTED).is_file():
            raise ConfigError(f"--source={source} does not belong to a run, so its model is unknown: give --config too")
        config = initialize.run_config(place)
    if config.task == "detect":
        raise ConfigError(f"{source} is a detector, which is not exported to ONNX")
    output = "tokens" if part == "encoder" else "features" if config.task == "pretrain" else "logits"
    config.model.dtype = "float32"
    graphdef, *arrays = fill_model(config, weights, whole=output == "logits")
    params, model_state = jax.tree.map(jnp.asarray, arrays)
    last = lookup.model_config(config).encoder.num_layers

    def compute(pixel_values: jax.Array) -> jax.Array:
        model: Any = merge(graphdef, params, model_state)
        images = jnp.transpose(pixel_values, (0, 2, 3, 1))
        if output == "tokens":
            return model.encoder(images, taps=(last,))[0]
        return model.features(images) if output == "features" else model(images)

    difference = onnx_io.write(path, compute, (config.data.channels, *config.image_size), output)
    return (
        f"written  {path}: {onnx_io.INPUT} [batch, {config.data.channels}, h, w], normalized -> {output}; onnxruntime "
        f"differs by {difference:.1e} at most"
    )


def _pixels(source: str, image_size: int | Sequence[int], channels: int) -> Pixels | None:
    """How the source prepares images: a run in its evaluation, a directory of timm or Transformers as it says.

    As for ImageNet where neither tells. None for images that are not RGB and for which no run tells.
    """
    place = files.local_path(source)
    found = folders.pixels(place if place.is_dir() else place.parent)
    if found is not None and len(found.mean) == channels:
        return found
    mean, std, resize, how = huggingface.IMAGENET_MEAN, huggingface.IMAGENET_STD, 0, {}
    with contextlib.suppress(DataError):  # a file, or what `convert` wrote
        config = initialize.run_config(place)
        mean, std, resize = tuple(config.data.mean), tuple(config.data.std), inputs.eval_resize(config)
        keys = {"interpolation": "eval_interpolation", "squash": "eval_squash"}
        how = {ours: config.data[key] for ours, key in keys.items() if key in config.data}
    short = image_size if isinstance(image_size, int) else min(image_size)
    return Pixels(mean, std, resize or round(short * 256 / 224), **how) if len(mean) == channels == 3 else None


def write_checkpoint(directory: Path, arrays: Mapping[str, np.ndarray], info: ModelInfo) -> None:
    """A directory that `checkpoint.init_from` takes: one verified checkpoint, and `model.json` in place of a config.

    Raises:
        ConfigError: the directory has something in it.
        StorageError: it cannot be written.
    """
    files.check_empty(directory)
    settings = CheckpointSettings(every_steps=0, every_epochs=0.0, keep_last=1, keep_every_steps=0)
    checkpointer = Checkpointer(directory / "checkpoints", settings)
    checkpointer.save(0, {"params": unflatten(arrays), "model_state": {}, "ema": {}})
    checkpointer.close()
    write_json(directory / initialize.CONVERTED, json.loads(info_to_json(info)))
