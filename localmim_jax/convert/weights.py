"""A model's arrays under our paths, with what is known of the model: what readers return and writers take."""

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from localmim_jax.detection.mask_rcnn import MaskRCNNConfig
from localmim_jax.errors import DataError
from localmim_jax.method.config import LocalMIMConfig
from localmim_jax.models.classifier import BATCH_NORM_EPSILON, ClassifierConfig
from localmim_jax.segmentation.upernet import SegmenterConfig

POSITIONS = "encoder/position_embedding"


@dataclasses.dataclass(frozen=True)
class About:
    """What the arrays themselves do not tell. Every field but the first two may be None: unknown, or not applicable.

    Attributes:
        family: of the backbone, "vit" or "swin".
        kind: "pretrain", the encoder with its decoders; "classifier", with a head; "detector"; "segmenter";
            or "encoder", alone.
        image_size: (h, w) in pixels that the positions and windows were made for.
        num_heads: attention heads of the encoder, one number, or one a stage.
        taps: layers that reconstruct in pre-training, counted from 1.
        target: of pre-training, "hog" or "pixels".
        octaves: of every decoder, log2 of its target grid over its feature grid; only the sign of negative ones counts.
        hog_bias: the release's frozen (gx, gy) bias of each scale's gradient filter.
        pool, head_order: of a classifier, as in `ClassifierConfig`.
    """

    family: str
    kind: str
    image_size: tuple[int, int] | None = None
    num_heads: tuple[int, ...] | None = None
    taps: tuple[int, ...] | None = None
    target: str | None = None
    octaves: tuple[int, ...] | None = None
    hog_bias: tuple[tuple[float, float], ...] | None = None
    pool: str | None = None
    head_order: str | None = None

    def to_json(self) -> str:
        """For the metadata of a file; `from_json` reads it back."""
        return json.dumps({key: value for key, value in dataclasses.asdict(self).items() if value is not None})

    @classmethod
    def from_json(cls, text: str, origin: str) -> "About":
        """Checks every value, since the text may come from anybody's file.

        Raises:
            DataError: it is not what `to_json` writes.
        """
        try:
            values = json.loads(text)
            about = cls(**{name: _CHECKS[name](value) for name, value in values.items()})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{origin}: its description of the model is damaged ({type(error).__name__})") from error
        return about


@dataclasses.dataclass(frozen=True)
class Weights:
    """Arrays by path, float32 unless noted, and the fate of every other name in the file.

    Attributes:
        arrays: flat, under our paths and in our layouts. ViT always has `encoder/position_embedding`.
        about: the model.
        origin: the file or run, for messages.
        ignored: name -> why it is left out on purpose.
        unexpected: name -> why it cannot be used; loading fails while there is any.
    """

    arrays: dict[str, np.ndarray]
    about: About
    origin: str
    ignored: dict[str, str] = dataclasses.field(default_factory=dict)
    unexpected: dict[str, str] = dataclasses.field(default_factory=dict)


def describe(config: LocalMIMConfig | ClassifierConfig | MaskRCNNConfig | SegmenterConfig) -> About:
    """What is to be known of a model, from its configuration."""
    encoder = config.encoder
    heads = encoder.num_heads
    common: dict[str, Any] = {
        "family": "swin" if isinstance(heads, tuple) else "vit",
        "image_size": tuple(encoder.image_size),
        "num_heads": heads if isinstance(heads, tuple) else (heads,),
    }
    if isinstance(config, MaskRCNNConfig):
        return About(kind="detector", **common)
    if isinstance(config, SegmenterConfig):
        return About(kind="segmenter", **common)
    if isinstance(config, ClassifierConfig):
        return About(kind="classifier", pool=config.pool, head_order=config.head_order, **common)
    target = config.target
    common |= {"taps": tuple(config.taps), "octaves": tuple(decoder.octaves for decoder in config.decoders())}
    return About(kind="pretrain", target=target.kind, hog_bias=target.hog_bias, **common)


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


_CHECKS: Mapping[str, Any] = {
    "family": _one_of("vit", "swin"),
    "kind": _one_of("pretrain", "classifier", "detector", "segmenter", "encoder"),
    "image_size": _tuple(_whole, 2),
    "num_heads": _tuple(_whole),
    "taps": _tuple(_whole),
    "target": _one_of("hog", "pixels"),
    "octaves": _tuple(_whole),
    "hog_bias": _tuple(_tuple(_number, 2)),
    "pool": _one_of("mean", "class"),
    "head_order": _one_of("pool_norm", "norm_pool"),
}
