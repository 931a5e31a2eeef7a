"""Directories of Hugging Face Transformers and timm: a `config.json` beside the weights, in one file or in shards.

Their configs tell what names and shapes do not: attention heads, image size, epsilon, and how images are normalized.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from PIL import Image

from localmim_jax.convert import files
from localmim_jax.errors import DataError
from localmim_jax.models.info import ModelInfo

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the first that is there, as both libraries do
_MODEL_TYPES = {"vit": "vit", "vit_mae": "vit", "swin": "swin"}  # Transformers' -> ours
TIMM_EPSILON = {"vit": 1e-6, "vit_reg": 1e-6, "swin": 1e-5}  # built in
_NOT_OURS = (TypeError, KeyError, ValueError, AttributeError, IndexError)


@dataclasses.dataclass(frozen=True)
class Pixels:
    """How images become the model's input, as in evaluation: what a preprocessor's config says.

    Attributes:
        mean, std: of RGB pixels in 0..1.
        resize: short side in pixels before the center crop to the model's image size.
        interpolation: of that resizing, the name of a filter of Pillow in small letters.
        squash: whether the image is resized to the shape of the model's, its own proportions lost.
    """

    mean: Sequence[float]
    std: Sequence[float]
    resize: int
    interpolation: str = "bicubic"
    squash: bool = False


def config_of(directory: Path) -> dict[str, Any] | None:
    """The `config.json` of a directory of Transformers or timm; None where there is none, or it is of neither."""
    try:
        config = json.loads((directory / CONFIG).read_text())
    except (OSError, ValueError, RecursionError):
        return None
    known = isinstance(config, dict) and ("model_type" in config or "architecture" in config) and "task" not in config
    return config if known else None


def read(directory: Path, config: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of such a directory and {"config": its config}, as `files.read` returns them.

    Raises:
        DataError: it is of a model that is not known here, or there are no weights, or they are damaged.
        ConfigError: torch is needed and missing or too old.
    """
    model = config.get("model_type")
    if model is not None and model not in _MODEL_TYPES:
        raise DataError(
            f"{directory / CONFIG} is of Transformers' model_type {str(model)[:40]!r}; known are "
            f"{', '.join(_MODEL_TYPES)}"
        )
    for name in WEIGHTS:
        if (directory / name).is_file():
            return files.read(directory / name)[0], {"config": config}
        index = directory / f"{name}.index.json"
        if index.is_file():
            return _read_shards(index), {"config": config}
    raise DataError(f"{directory} has a {CONFIG}, but no weights beside it: {' or '.join(WEIGHTS)} is needed")


def _read_shards(index: Path) -> dict[str, np.ndarray]:
    try:
        weight_map = json.loads(index.read_text())["weight_map"]
        names = sorted(set(weight_map.values()))
        if any(Path(name).name != name for name in names):
            raise ValueError("a shard outside the directory")
    except (OSError, RecursionError, *_NOT_OURS) as error:
        raise DataError(f"{index} is damaged ({type(error).__name__}): its weight_map names no files") from error
    arrays: dict[str, np.ndarray] = {}
    if missing := [name for name in names if not (index.parent / name).is_file()]:
        raise DataError(f"{index.parent}: {len(missing)} of {len(names)} shards are missing: {', '.join(missing[:4])}")
    for name in names:
        arrays |= files.read(index.parent / name, shard=True)[0]
    if absent := sorted(set(weight_map) - set(arrays)):
        raise DataError(f"{index.parent}: its shards lack {len(absent)} arrays of the index: {', '.join(absent[:3])}")
    return arrays


def with_config(info: ModelInfo, config: Mapping[str, Any], origin: str) -> ModelInfo:
    """What the names told, completed by the config.

    Raises:
        DataError: the config is damaged, or of something that is not built here.
    """
    try:
        return _with_timm(info, config) if "architecture" in config else _with_transformers(info, config)
    except _NOT_OURS as error:
        raise DataError(f"{origin}: its {CONFIG} is damaged or unusual ({type(error).__name__}: {error})") from error


def _with_transformers(info: ModelInfo, config: Mapping[str, Any]) -> ModelInfo:
    if (activation := config.get("hidden_act", "gelu")) != "gelu":
        raise ValueError(f"hidden_act is {activation!r}, and models here have 'gelu'")
    heads = config["num_heads"] if "num_heads" in config else [config["num_attention_heads"]]
    return dataclasses.replace(
        info,
        image_size=_size(config["image_size"]),
        num_heads=tuple(_whole(number) for number in heads),
        epsilon=float(config["layer_norm_eps"]),
    )


def _with_timm(info: ModelInfo, config: Mapping[str, Any]) -> ModelInfo:
    settings, arguments = config.get("pretrained_cfg", config), config.get("model_args", {})
    heads = arguments.get("num_heads")
    changes: dict[str, Any] = {"epsilon": TIMM_EPSILON[info.family]}
    if heads is not None:
        changes["num_heads"] = tuple(_whole(number) for number in (heads if isinstance(heads, list) else [heads]))
    if "img_size" in arguments or "input_size" in settings:
        changes["image_size"] = _size(arguments.get("img_size") or settings["input_size"][1:])
    pool = arguments.get("global_pool", config.get("global_pool"))
    if info.kind == "classifier" and info.pool == "class" and pool not in (None, "token"):
        if pool != "avg":
            raise ValueError(f"global_pool is {pool!r}; 'token' and 'avg' are known")
        changes |= {"pool": "mean", "head_order": "norm_pool"}  # its norm is before the pooling, by its name
    return dataclasses.replace(info, **changes)


def pixels(directory: Path) -> Pixels | None:
    """How such a directory's images are prepared; None where it does not say."""
    config = config_of(directory)
    if config is None:
        return None
    try:
        if "architecture" in config:
            return _pixels_of_timm(config)
        return _pixels_of_transformers(json.loads((directory / "preprocessor_config.json").read_text()))
    except (OSError, RecursionError, ZeroDivisionError, OverflowError, *_NOT_OURS) as error:
        if not isinstance(error, FileNotFoundError):
            logging.warning("%s does not tell how its images are prepared: it is damaged or unusual", directory)
        return None


def _pixels_of_timm(config: Mapping[str, Any]) -> Pixels:
    settings = config.get("pretrained_cfg", config)
    short = min(_size(config.get("model_args", {}).get("img_size") or settings["input_size"][1:]))
    resize = _whole(math.floor(short / settings.get("crop_pct", 0.875)))
    squash = settings.get("crop_mode") == "squash"
    interpolation = Image.Resampling[settings.get("interpolation", "bicubic").upper()].name.lower()
    return Pixels(tuple(settings["mean"]), tuple(settings["std"]), resize, interpolation, squash)


def _pixels_of_transformers(found: Mapping[str, Any]) -> Pixels:
    """An image processor's resizing, cropping and normalization; what it does not do is not done."""
    size, crops = found["size"], bool(found.get("do_center_crop"))
    if isinstance(size, int):  # of the older feature extractors: a ViT's is a square
        size = {"shortest_edge": size} if crops else {"height": size, "width": size}
    squash = "shortest_edge" not in size
    resize = _whole(min(size["height"], size["width"]) if squash else size["shortest_edge"])
    if crops and not found.get("do_resize", True):
        crop = found["crop_size"]
        resize, squash = _whole(crop if isinstance(crop, int) else min(crop["height"], crop["width"])), False
    scale = 255 * found.get("rescale_factor", 1 / 255) if found.get("do_rescale", True) else 255
    mean, std = (found["image_mean"], found["image_std"]) if found.get("do_normalize", True) else ([0] * 3, [1] * 3)
    if abs(scale - 1) > 1e-6:
        mean, std = ([value / scale for value in values] for values in (mean, std))
    interpolation = Image.Resampling(found.get("resample", Image.Resampling.BILINEAR)).name.lower()
    return Pixels(tuple(mean), tuple(std), resize, interpolation, squash)


def _size(value: Any) -> tuple[int, int]:
    height, width = (value, value) if isinstance(value, int) else value
    return _whole(height), _whole(width)


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 < value < 2**16:
        raise ValueError(f"{str(value)[:40]} where a positive number is expected")
    return value
