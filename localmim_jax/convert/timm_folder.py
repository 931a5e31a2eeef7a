"""Models as directories that timm reads: `timm.create_model("local-dir:DIR", pretrained=True)`, strictly."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from localmim_jax.convert import files
from localmim_jax.convert.export import with_final_norm, with_last_norm
from localmim_jax.convert.folders import CONFIG, TIMM_EPSILON, Pixels
from localmim_jax.convert.naming import naming_of
from localmim_jax.convert.weights import Weights
from localmim_jax.errors import ConfigError


def export(weights: Weights) -> tuple[dict[str, np.ndarray], dict[str, Any], list[str]]:
    """A model under timm's names, as `export.export` writes it, with the config that makes it there.

    Without a head, the pooled output of a ViT is the mean of the normalized patch tokens, or where the final norm is of
    the pooled feature, that; a Swin's is the mean of the normalized tokens. A pre-trained model's is what k-NN reads.

    Returns:
        (name -> array, `config.json` without what `Pixels` tells, notes on what differs there).

    Raises:
        ConfigError: the model cannot be expressed there; says why.
    """
    if weights.info.kind == "pretrain":
        weights = with_last_norm(weights)
    info, origin, notes = weights.info, weights.origin, []
    if info.kind not in ("encoder", "classifier"):
        raise ConfigError(f"{origin}: timm has no such {info.kind}; export the encoder alone (--part=encoder)")
    if info.num_heads is None:
        raise ConfigError(
            f"{origin} does not give its number of attention heads, which timm needs: give the directory or run"
        )
    weights, plain = with_final_norm(weights)
    if plain:
        notes.append("no norm follows the encoder: its norm is written with scale 1 and bias 0")
    naming = naming_of(info.family)
    model = naming.timm_model(weights)
    arrays = model.arrays
    patch, _, channels, _ = weights.arrays["encoder/patch_embed/kernel"].shape
    size = info.image_size or (224, 224)  # a Swin works at any size
    num_classes = len(weights.arrays["head/bias"]) if info.kind == "classifier" else 0
    built_in = TIMM_EPSILON[info.family]
    if info.epsilon not in (None, built_in):
        notes.append(
            f"timm's {model.architecture} has layer norms of epsilon {built_in:g}, and these weights were trained with "
            f"{info.epsilon:g}: features differ a little; models with model.epsilon={built_in:g} agree"
        )
    config = {
        "architecture": model.architecture,
        "num_classes": num_classes,
        "num_features": model.num_features,
        "global_pool": model.settings["global_pool"],
        "model_args": {"img_size": list(size), "patch_size": patch, "in_chans": channels, **model.settings},
        "pretrained_cfg": {
            "num_classes": num_classes,
            "input_size": [channels, *size],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_mode": "center",
            "first_conv": "patch_embed.proj",
            "classifier": model.classifier,
        },
    }
    return arrays, config, notes


def write(
    directory: Path, arrays: Mapping[str, np.ndarray], config: Mapping[str, Any], pixels: Pixels | None
) -> list[Path]:
    """`model.safetensors` and `config.json`, with how images are prepared where `pixels` tell.

    Raises:
        ConfigError: the directory has something in it.
        StorageError: it cannot be written.
    """
    content = {**config, "pretrained_cfg": dict(config["pretrained_cfg"])}
    if pixels is not None:
        short = min(config["pretrained_cfg"]["input_size"][1:])
        prepared = {"mean": list(pixels.mean), "std": list(pixels.std), "crop_pct": crop_pct(short, pixels.resize)}
        prepared |= {"interpolation": pixels.interpolation, "crop_mode": "squash" if pixels.squash else "center"}
        content["pretrained_cfg"] |= prepared
    return files.write_model_directory(directory, arrays, {CONFIG: content})


def crop_pct(short: int, resize: int) -> float:
    """timm's fraction of the resized image that the crop of `short` pixels keeps; it rounds the other side down."""
    fraction = short / resize
    return fraction if math.floor(short / fraction) == resize else short / (resize + 0.5)
