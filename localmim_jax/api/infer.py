"""The config of weights without a run: sizes are inferred from the shapes of the arrays."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from localmim_jax.convert import interpolate
from localmim_jax.convert.load import has_fixed_positions
from localmim_jax.convert.weights import POSITIONS, Weights
from localmim_jax.errors import ConfigError
from localmim_jax.models.registry import VARIANTS
from localmim_jax.recipes.load import load_config

_HEAD_WIDTH = 64  # channels of an attention head of published ViTs but the largest
_HEADS = {1280: 16, 1408: 16, 1664: 16}  # of those, by width: ViT-H, ViT-g, ViT-G
_SIDE = 224  # pixels, where neither the arrays nor their description tell

Arrays = Mapping[str, np.ndarray]


def recipe_of(family: str, variant: str, classifier: bool) -> ConfigDict:
    """The config of a published size, for pre-training or with a head. It computes in the recipe's dtype."""
    recipe = "swin_b_hog_100ep" if family == "swin" else "vit_b_100ep"
    config = load_config(f"{recipe}_finetune" if classifier else recipe).unlock()
    config.model.variant = variant
    if classifier:
        config.model.drop_path = 0.0
    return config


def config_for(weights: Weights) -> tuple[ConfigDict, Weights]:
    """A float32 config that the weights fill, and the weights for it.

    An encoder alone becomes a classifier without classes, since classifiers know learned positions and keep a norm
    that follows the encoder; a missing norm has scale 1 and bias 0. Its feature is the mean of the normalized patch
    tokens.

    Raises:
        ConfigError: a detector or a segmentation model, whose config cannot be inferred.
    """
    info, arrays = weights.info, weights.arrays
    if info.kind not in ("pretrain", "classifier", "encoder"):
        raise ConfigError(
            f"{weights.origin} is a {info.kind} that does not belong to a run, so its config is unknown: give config=, "
            "a recipe's name or a config"
        )
    config = recipe_of(info.family, _variant(info.family, arrays), classifier=info.kind != "pretrain")
    config.model.dtype = "float32"
    kernel = arrays["encoder/patch_embed/kernel"]
    config.model.patch_size, config.data.channels = kernel.shape[0], kernel.shape[2]
    if kernel.shape[2] != len(config.data.mean):
        config.data.mean, config.data.std = (0.5,) * kernel.shape[2], (0.25,) * kernel.shape[2]
    config.model.update(_swin_sizes(arrays) if info.family == "swin" else _vit_sizes(weights))
    config.model.epsilon = info.epsilon
    config.image_size = tuple(info.image_size or (_side(config, arrays),) * 2)
    if info.kind == "pretrain":
        if "position" in config.model and not has_fixed_positions(weights):
            config.model.position = "learned"
        _set_decoders(config, weights)
        return config, weights
    if info.kind == "classifier":
        config.model.num_classes = int(arrays["head/bias"].size)
        config.model.pool, config.model.head_order = info.pool or "mean", info.head_order or "pool_norm"
        return config, weights
    config.model.num_classes, config.model.head_order = 2, info.head_order or "norm_pool"
    return config, _with_empty_head(weights)


def _variant(family: str, arrays: Arrays) -> str:
    """The published size with this width and depth, or else any of the family, whose sizes are then overridden."""
    width = arrays["encoder/patch_embed/kernel"].shape[3]
    depths = _depths(arrays) if family == "swin" else _count(arrays, r"encoder/blocks/(\d+)/.*")
    of_family = {name: sizes for name, (kind, sizes) in VARIANTS.items() if kind.family == family}
    same = [
        name
        for name, sizes in of_family.items()
        if sizes["width"] == width and sizes.get("depths", sizes.get("depth")) == depths
    ]
    return (same or list(of_family))[0]


def _vit_sizes(weights: Weights) -> dict[str, Any]:
    arrays = weights.arrays
    width, hidden = arrays["encoder/blocks/0/mlp/fc1/kernel"].shape
    heads = (weights.info.num_heads or (_HEADS.get(width, max(1, width // _HEAD_WIDTH)),))[0]
    sizes = {"width": width, "depth": _count(arrays, r"encoder/blocks/(\d+)/.*"), "num_heads": heads}
    if "encoder/register_tokens" in arrays:
        sizes["num_registers"] = len(arrays["encoder/register_tokens"])
    return {**sizes, "mlp_ratio": hidden / width}


def _swin_sizes(arrays: Arrays) -> dict[str, Any]:
    width, hidden = arrays["encoder/stages/0/blocks/0/mlp/fc1/kernel"].shape
    depths = _depths(arrays)
    tables = [
        arrays[f"encoder/stages/{stage}/blocks/0/attention/relative_position_bias"] for stage in range(len(depths))
    ]
    return {
        "width": width,
        "depths": depths,
        "num_heads": tuple(int(table.shape[1]) for table in tables),
        "window": max(interpolate.window_of(len(table)) or 2 for table in tables),
        "mlp_ratio": hidden / width,
    }


def _depths(arrays: Arrays) -> tuple[int, ...]:
    stages = _count(arrays, r"encoder/stages/(\d+)/.*")
    return tuple(_count(arrays, rf"encoder/stages/{stage}/blocks/(\d+)/.*") for stage in range(stages))


def _count(arrays: Arrays, pattern: str) -> int:
    return len({match[1] for path in arrays if (match := re.fullmatch(pattern, path))})


def _side(config: ConfigDict, arrays: Arrays) -> int:
    """The side of a square image. A Swin's last windows fill its last grid, at the size that it was made for."""
    if config.model.get("depths"):
        stage = len(config.model.depths) - 1
        window = interpolate.window_of(len(arrays[f"encoder/stages/{stage}/blocks/0/attention/relative_position_bias"]))
        return config.model.patch_size * 2**stage * (window or config.model.window)
    places = len(arrays[POSITIONS]) if POSITIONS in arrays else 0
    for prefix in (1, 0):
        if places > prefix and (side := math.isqrt(places - prefix)) ** 2 == places - prefix:
            return side * config.model.patch_size
    return _SIDE


def _set_decoders(config: ConfigDict, weights: Weights) -> None:
    """The keys of taps, targets and decoders. Raises ConfigError: the description of the model lacks one."""
    info, arrays, model = weights.info, weights.arrays, config.model
    if info.taps is None or info.log2_scale is None or info.target is None:
        raise ConfigError(
            f"{weights.origin} does not give its tapped layers: give config=, or export its encoder alone with "
            "localmim convert --part=encoder"
        )
    widths = tuple(len(arrays[f"decoders/{i}/mask_token"]) for i in range(len(info.taps)))
    is_swin = bool(model.get("depths"))
    model.taps = info.taps
    model.decoder.width = widths if is_swin else widths[0]
    model.decoder.depth = _count(arrays, r"decoders/0/blocks/(\d+)/.*")
    stages = len(model.depths) if is_swin else 0
    if is_swin:
        model.sparse_attention = ("packed",) * stages
    # Behind a stage, but for the last, a patch merging has halved the grid already.
    strides = [model.patch_size * (2 ** min(tap, stages - 1) if is_swin else 1) for tap in info.taps]
    cells = [
        stride // 2**scale if scale > 0 else stride * 2**-scale
        for stride, scale in zip(strides, info.log2_scale, strict=True)
    ]
    values = [len(arrays[f"decoders/{i}/predict/bias"]) for i in range(len(info.taps))]
    model.target.kind = info.target
    if info.target == "hog":
        model.target.bins = values[0] // config.data.channels
    else:  # a normalized patch: its cell tells a negative scale, whose sign alone is known, exactly
        cells = [math.isqrt(count // config.data.channels) for count in values]
    model.target.cells = tuple(cells)


def _with_empty_head(weights: Weights) -> Weights:
    arrays = dict(weights.arrays)
    last = max(
        (path for path in arrays if re.fullmatch(r"encoder/.*norm2/scale", path)),
        key=lambda path: [int(number) for number in re.findall(r"/(\d+)", path)],
    )
    width = len(arrays[last])
    arrays.setdefault("norm/scale", np.ones(width, np.float32))
    arrays.setdefault("norm/bias", np.zeros(width, np.float32))
    arrays |= {"head/kernel": np.zeros((width, 2), np.float32), "head/bias": np.zeros(2, np.float32)}
    return dataclasses.replace(
        weights, arrays=arrays, info=dataclasses.replace(weights.info, kind="classifier", pool=None, head_order=None)
    )
