"""A model's arrays under our paths, with what is known of the model: what readers return and writers take."""

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from localmim_jax.errors import DataError
from localmim_jax.models.classifier import BATCH_NORM_EPSILON
from localmim_jax.models.info import ModelInfo
from localmim_jax.models.registry import KINDS

POSITIONS = "encoder/position_embedding"


@dataclasses.dataclass(frozen=True)
class Weights:
    """Arrays by path, float32 unless noted, and the fate of every other name in the file.

    Attributes:
        arrays: flat, under our paths and in our layouts. ViT always has `encoder/position_embedding`.
        info: what else is known of the model.
        origin: the file or run, for messages.
        ignored: name -> why it is left out on purpose.
        unexpected: name -> why it cannot be used; loading fails while there is any.
        assumed: field of `info`, or "merging" -> what the source does not tell, what is assumed, and how to change it.
        merging_flag: whether `standard_merging` can change how the source is read.
    """

    arrays: dict[str, np.ndarray]
    info: ModelInfo
    origin: str
    ignored: dict[str, str] = dataclasses.field(default_factory=dict)
    unexpected: dict[str, str] = dataclasses.field(default_factory=dict)
    assumed: dict[str, str] = dataclasses.field(default_factory=dict)
    merging_flag: bool = False


def info_to_json(info: ModelInfo) -> str:
    """For the metadata of a file; `info_from_json` reads it back."""
    values = dataclasses.asdict(info).items()
    return json.dumps({_STORED.get(name, name): value for name, value in values if value is not None})


def info_from_json(text: str, origin: str) -> ModelInfo:
    """Checks every value, since the text may come from anybody's file.

    Raises:
        DataError: it is not what `info_to_json` writes.
    """
    fields = {_STORED.get(name, name): name for name in _CHECKS}
    try:
        values = {fields[key]: value for key, value in json.loads(text).items()}
        info = ModelInfo(**{name: _CHECKS[name](value) for name, value in values.items()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{origin}: its description of the model is damaged ({type(error).__name__})") from error
    return info


def looks_untrained(weights: Weights) -> bool:
    """Whether every norm of the encoder is still exactly as it begins, which no training step leaves so."""
    norms = {path: array for path, array in weights.arrays.items() if re.fullmatch(r"encoder/.*norm\d?/\w+", path)}
    return bool(norms) and all((array == float(path.endswith("scale"))).all() for path, array in norms.items())


def fold_batch_norm(arrays: Mapping[str, np.ndarray], mean: np.ndarray, variance: np.ndarray) -> dict[str, np.ndarray]:
    """A probe's batch norm, evaluated with its running statistics [d], as part of the head that follows it."""
    scale = 1 / np.sqrt(np.asarray(variance, np.float64) + BATCH_NORM_EPSILON)
    kernel = scale[:, None] * arrays["head/kernel"]
    bias = arrays["head/bias"] - np.asarray(mean, np.float64) @ kernel
    return {**arrays, "head/kernel": kernel.astype(np.float32), "head/bias": bias.astype(np.float32)}


def _one_of(*allowed: str) -> Any:
    def check(value: Any) -> str:
        if value not in allowed:
            raise ValueError(value)
        return value

    return check


def _whole(value: Any) -> int:
    if type(value) is not int or not -16 <= value <= 2**20:
        raise ValueError(value)
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise ValueError(value)
    return float(value)


def _tuple(item: Any, length: int | None = None) -> Any:
    def check(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) > 64 or length not in (None, len(value)):
            raise ValueError(value)
        return tuple(map(item, value))

    return check


_STORED = {"log2_scale": "octaves"}  # fields that have another name in files
_CHECKS: Mapping[str, Any] = {
    "family": _one_of(*KINDS),
    "kind": _one_of("pretrain", "classifier", "detector", "segmenter", "encoder"),
    "image_size": _tuple(_whole, 2),
    "num_heads": _tuple(_whole),
    "taps": _tuple(_whole),
    "target": _one_of("hog", "pixels"),
    "log2_scale": _tuple(_whole),
    "hog_bias": _tuple(_tuple(_number, 2)),
    "pool": _one_of("mean", "class"),
    "head_order": _one_of("pool_norm", "norm_pool"),
    "epsilon": _number,
}
