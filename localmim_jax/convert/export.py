"""Weights under the names of the authors' release or of timm, ready for their own loaders."""

import dataclasses
import re

import numpy as np

from localmim_jax.convert.naming import naming_of
from localmim_jax.convert.weights import Weights
from localmim_jax.errors import ConfigError
from localmim_jax.models.info import ModelInfo

NAMINGS = ("localmim", "release", "timm")


def only_encoder(weights: Weights) -> Weights:
    """The encoder alone, which is what transfers."""
    arrays = {path: array for path, array in weights.arrays.items() if path.startswith("encoder/")}
    old = weights.info
    return dataclasses.replace(
        weights, arrays=arrays, info=ModelInfo(old.family, "encoder", old.image_size, old.num_heads)
    )


def with_last_norm(weights: Weights) -> Weights:
    """The encoder of a pre-training model and, as its final norm, that of the tap at its last layer if there is one."""
    layers = {match[0] for path in weights.arrays if (match := re.match(r"encoder/(blocks|stages)/\d+/", path))}
    encoder, taps = only_encoder(weights), weights.info.taps or ()
    if len(layers) not in taps:
        return encoder
    prefix = f"decoders/{taps.index(len(layers))}/norm/"
    norm = {f"norm/{leaf}": weights.arrays[f"{prefix}{leaf}"] for leaf in ("scale", "bias")}
    return dataclasses.replace(encoder, arrays=encoder.arrays | norm)


def export(weights: Weights, naming: str) -> tuple[dict[str, np.ndarray], ModelInfo]:
    """Every array under the names of `naming`, one of `NAMINGS`, with what can be derived and their loaders expect.

    For timm, a pre-training model leaves its decoders behind and keeps the norm of its last layer.

    Returns:
        (name -> array, the description of what they are now).

    Raises:
        ConfigError: an array has no name there, or the model cannot be expressed there; says why.
    """
    if weights.unexpected:
        shown = "; ".join(f"{name}: {reason}" for name, reason in list(weights.unexpected.items())[:8])
        raise ConfigError(
            f"{weights.origin} cannot be exported, {len(weights.unexpected)} of its arrays are of no use: {shown}"
        )
    match naming:
        case "localmim":
            return dict(weights.arrays), weights.info
        case "release":
            return naming_of(weights.info.family).release(weights), weights.info
        case "timm":
            if weights.info.kind == "pretrain":
                weights = with_last_norm(weights)
            return naming_of(weights.info.family).timm(weights), weights.info
    raise ConfigError(f"names are one of {', '.join(NAMINGS)}, not {naming!r}")
