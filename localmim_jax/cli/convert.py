"""Convert weights: the authors' release, MAE, timm, Transformers, ONNX, ours.

    localmim convert --source=checkpoint.pth --target=runs/released
    localmim convert --source=runs/vit_b --target=vit_b.pth
    localmim convert --source=runs/vit_b_finetune --target=vit_b.safetensors --names=timm
    localmim convert --source=runs/swin_b --target=swin_b_encoder.npz --part=encoder
    localmim convert --source=runs/vit_b --target=vit_b_transformers --names=transformers
    localmim convert --source=runs/vit_b --target=vit_b.onnx

The source is a run directory, one of its checkpoints, or a file in safetensors, npz or PyTorch format. The names of its
arrays tell which project wrote it. The target's suffix tells its format; without a suffix it becomes a directory: with
a checkpoint for checkpoint.init_from, or, with --names=transformers, what Hugging Face Transformers' from_pretrained
reads. An ONNX file computes what the model does without a mask: a classifier's logits, or else the pooled feature; with
--part=encoder the tokens of the last layer. Untrusted files are read as data, never executed; their sha256 is printed.
"""

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from localmim_jax.errors import ConfigError
from localmim_jax.recipes import common_flags

if TYPE_CHECKING:
    from localmim_jax.convert.huggingface import Pixels
    from localmim_jax.convert.weights import Weights
    from localmim_jax.models.info import ModelInfo

TRANSFORMERS = "transformers"
HEAD_ORDERS = ("pool_norm", "norm_pool")
_HOG_BIAS = "hog_enc.{}.conv.bias"


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("source", None, "run directory, checkpoint or file to read", flag_values=values)
    flags.DEFINE_string("target", None, "file or directory to write", flag_values=values)
    flags.DEFINE_string(
        "names",
        "",
        "localmim, release, timm or transformers; empty: release for PyTorch's suffixes, else localmim",
        flag_values=values,
    )
    flags.DEFINE_string(
        "config", "", "recipe of the model, for ONNX from a source that belongs to no run of ours", flag_values=values
    )
    flags.DEFINE_string("part", "all", "all, or encoder: what transfers", flag_values=values)
    common_flags.define_standard_merging(values)
    flags.DEFINE_string(
        "head_order", "", "pool_norm or norm_pool: of a Swin classifier whose names do not tell", flag_values=values
    )


def main(options: flags.FlagValues) -> None:
    common_flags.require(options, source="runs/vit_b", target="vit_b.npz")
    for name, allowed in (("part", ("all", "encoder")), ("head_order", ("", *HEAD_ORDERS))):
        if getattr(options, name) not in allowed:
            raise ConfigError(
                f"--{name}={getattr(options, name)}: it must be one of {', '.join(filter(None, allowed))}"
            )
    print("\n".join(convert(**{name: getattr(options, name) for name in _ARGUMENTS})))


_ARGUMENTS = ("source", "target", "names", "part", "standard_merging", "head_order", "config")


def convert(
    source: str,
    target: str,
    names: str = "",
    part: str = "all",
    standard_merging: bool | None = None,
    head_order: str = "",
    config: ConfigDict | None = None,
) -> list[str]:
    """Reads, renames and writes; see the flags for the arguments.

    Returns:
        Lines that say what was read, left out and written.

    Raises:
        ConfigError, DataError, StorageError: something does not fit, cannot be read or written; says what.
    """
    from localmim_jax.convert import files, onnx_io
    from localmim_jax.convert.export import export, only_encoder
    from localmim_jax.convert.weights import info_to_json
    from localmim_jax.tasks import initialize

    place = files.local_path(target)
    names = names or ("release" if place.suffix.lower() in files.TORCH_SUFFIXES else "localmim")
    _check_target(target, place, names)
    weights = initialize.read(source, standard_merging)
    if head_order:
        if weights.info.kind != "classifier":
            raise ConfigError(f"--head_order={head_order}: {source} has no classification head; leave it out")
        weights = dataclasses.replace(weights, info=dataclasses.replace(weights.info, head_order=head_order))
    kind = f"{weights.info.family}, {weights.info.kind}, {len(weights.arrays)} arrays"
    if place.suffix.lower() == onnx_io.SUFFIX:
        written = [write_onnx(source, place, weights, part, config)]
        return [f"read     {weights.origin}: {kind}", *_grouped_reasons(weights.ignored), *written]
    if part == "encoder":
        weights = only_encoder(weights)
    if names == TRANSFORMERS:
        written = write_transformers(source, place, weights)
        return [f"read     {weights.origin}: {kind}", *_grouped_reasons(weights.ignored), *written]
    arrays, info = export(weights, names)
    if place.suffix:
        files.write(place, arrays, info_to_json(info))
    else:
        write_checkpoint(place, arrays, info)
    count = sum(array.size for array in arrays.values())
    lines = [
        f"read     {weights.origin}: {kind}",
        *_grouped_reasons(weights.ignored),
        f"written  {place}: {info.kind}, {len(arrays)} arrays, {count:,} numbers, {names} names",
    ]
    if info.hog_bias is not None and names == "localmim":
        file = place.with_name(f"{place.stem}_hog_bias.npz")
        values: dict[str, Any] = {_HOG_BIAS.format(k): np.array(v, np.float32) for k, v in enumerate(info.hog_bias)}
        np.savez(file, **values)
        lines.append(f"written  {file}: to go on pre-training, --config.model.target.hog_bias={file}")
    return lines


def _check_target(target: str, place: Path, names: str) -> None:
    from localmim_jax.convert import files, onnx_io
    from localmim_jax.convert.export import NAMINGS

    if names not in (*NAMINGS, TRANSFORMERS):
        raise ConfigError(f"--names={names}: it must be one of {', '.join((*NAMINGS, TRANSFORMERS))}")
    if place.suffix.lower() == onnx_io.SUFFIX and names != "localmim":
        raise ConfigError(f"--names={names}: an ONNX file has no names of parameters; leave it out")
    if names == TRANSFORMERS and place.suffix:
        raise ConfigError(f"--target={target}: --names={names} writes a directory; give a name without a suffix")
    if not place.suffix and names not in ("localmim", TRANSFORMERS):
        raise ConfigError(
            f"--target={target} is a checkpoint, which has our own names: give a suffix for --names={names}"
        )
    if not place.suffix:
        files.check_empty(place)
    elif place.suffix.lower() != onnx_io.SUFFIX:
        files.check_suffix(place)


def write_transformers(source: str, directory: Path, weights: "Weights") -> list[str]:
    """The directory that Transformers reads, see `convert.huggingface`; returns lines that say what was written.

    Raises:
        ConfigError: the model cannot be expressed there, or the directory has something in it.
        StorageError: it cannot be written.
    """
    from localmim_jax.convert import huggingface

    arrays, config, plain_norm = huggingface.export(weights)
    count = sum(array.size for array in arrays.values())
    pixels = _pixels(source, config["image_size"]) if config["num_channels"] == 3 else None
    files = huggingface.write(directory, arrays, config, pixels)
    (model,) = config["architectures"]
    lines = [
        f"written  {directory}: Transformers' {model}, {len(arrays)} arrays, {count:,} numbers: "
        f"{', '.join(path.name for path in files)}"
    ]
    if plain_norm:
        lines.append("note     no norm follows the encoder: its layernorm is written with scale 1 and bias 0")
    if pixels is None:
        lines.append(f"note     no preprocessor is written for images of {config['num_channels']} channels")
    return lines


def write_onnx(source: str, path: Path, weights: "Weights", part: str, config: ConfigDict | None) -> str:
    """The model as an ONNX file, see `convert.onnx_io`; returns a line that says what was written.

    Raises:
        ConfigError: no config, weights that do not fill its model, or a detector.
        DataError, StorageError: see `onnx_io.write`.
    """
    import jax
    import jax.numpy as jnp

    from localmim_jax.api import fill_model
    from localmim_jax.convert import onnx_io
    from localmim_jax.params import merge
    from localmim_jax.tasks import initialize, lookup

    if config is None:
        place = Path(source).expanduser().absolute()
        if not place.is_dir() or (place / initialize.CONVERTED).is_file():
            raise ConfigError(f"--source={source} belongs to no run of ours, so it tells no model: give --config too")
        config = initialize.run_config(place)
    if config.task == "detect":
        raise ConfigError(f"{source} is a detector, which is not exported to ONNX")
    output = "tokens" if part == "encoder" else "features" if config.task == "pretrain" else "logits"
    config.model.dtype = "float32"
    graphdef, *arrays = fill_model(config, weights)
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


def _pixels(source: str, image_size: "int | list[int]") -> "Pixels":
    """How the run of `source` evaluates images; as for ImageNet where it is no run of ours."""
    from localmim_jax.convert import huggingface
    from localmim_jax.errors import DataError
    from localmim_jax.tasks import initialize

    mean, std, resize = huggingface.IMAGENET_MEAN, huggingface.IMAGENET_STD, 0
    with contextlib.suppress(DataError):  # a file, or what `convert` wrote
        config = initialize.run_config(Path(source).expanduser().absolute())
        mean, std, resize = tuple(config.data.mean), tuple(config.data.std), config.eval.get("resize", 0)
    short = image_size if isinstance(image_size, int) else min(image_size)
    return huggingface.Pixels(mean, std, resize or round(short * 256 / 224))


def write_checkpoint(directory: Path, arrays: Mapping[str, np.ndarray], info: "ModelInfo") -> None:
    """A directory that `checkpoint.init_from` takes: one verified checkpoint, and `model.json` in place of a config.

    Raises:
        ConfigError: the directory has something in it.
        StorageError: it cannot be written.
    """
    from localmim_jax.convert import files
    from localmim_jax.convert.weights import info_to_json
    from localmim_jax.engine.checkpoints.write import Checkpointer
    from localmim_jax.engine.settings import CheckpointSettings
    from localmim_jax.files import write_json
    from localmim_jax.params import unflatten
    from localmim_jax.tasks import initialize

    files.check_empty(directory)
    settings = CheckpointSettings(every_steps=0, every_epochs=0.0, keep_last=1, keep_every_steps=0)
    checkpointer = Checkpointer(directory / "checkpoints", settings)
    checkpointer.save(0, {"params": unflatten(arrays), "model_state": {}, "ema": {}})
    checkpointer.close()
    write_json(directory / initialize.CONVERTED, json.loads(info_to_json(info)))


def _grouped_reasons(ignored: dict[str, str]) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for name, reason in ignored.items():
        reasons.setdefault(reason, []).append(name)
    return [f"ignored  {len(found)} x {reason}: {found[0]}, ..." for reason, found in reasons.items()]
