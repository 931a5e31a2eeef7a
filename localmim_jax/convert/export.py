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
        weights,
        arrays=arrays,
        info=ModelInfo(old.family, "encoder", old.image_size, old.num_heads, epsilon=old.epsilon),
        assumed={key: text for key, text in weights.assumed.items() if key != "head_order"},
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


def with_final_norm(weights: Weights) -> tuple[Weights, bool]:
    """Weights that end in a norm, and whether it is a plain one, of scale 1 and bias 0: an encoder may have none."""
    if "norm/scale" in weights.arrays:
        return weights, False
    norms = [path for path in weights.arrays if re.fullmatch(r"encoder/.*blocks/\d+/norm2/scale", path)]
    last = max(norms, key=lambda path: [int(number) for number in re.findall(r"/(\d+)", path)])
    width = len(weights.arrays[last])
    plain = {"norm/scale": np.ones(width, np.float32), "norm/bias": np.zeros(width, np.float32)}
    return dataclasses.replace(weights, arrays=weights.arrays | plain), True


def export(weights: Weights, naming: str) -> tuple[dict[str, np.ndarray], ModelInfo]:
    """Every array under the names of `naming`, one of `NAMINGS`, with what can be derived and their loaders expect.

    For timm, a pre-training model leaves its decoders behind and keeps the norm of its last layer. timm's models end in
    a norm, so that an encoder without one gets a plain one, as for Transformers.

    Returns:
        (name -> array, the description of what they are now).

    Raises:
        ConfigError: an array has no name there, or the model cannot be expressed there; says why.
    """
    if weights.unexpected:
        shown = "; ".join(f"{name}: {reason}" for name, reason in list(weights.unexpected.items())[:8])
        raise ConfigError(
            f"{weights.origin} cannot be exported: {len(weights.unexpected)} of its arrays are unexpected: {shown}"
        )
    match naming:
        case "localmim":
            return dict(weights.arrays), weights.info
        case "release":
            return naming_of(weights.info.family).release(weights), weights.info
        case "timm":
            if weights.info.kind == "pretrain":
                weights = with_last_norm(weights)
            if weights.info.kind == "encoder":
                weights, _ = with_final_norm(weights)
            return naming_of(weights.info.family).timm(weights), weights.info
    raise ConfigError(f"names are one of {', '.join(NAMINGS)}, not {naming!r}")
