"""Configs of legal values that fit each other: a recipe made small, with one to eight of its keys or groups drawn."""

import functools
from typing import Any

from hypothesis import strategies as st
from ml_collections import ConfigDict

from localmim_jax.configs import parts
from localmim_jax.recipes.override import flatten
from tests.shrink import shrink

MAKERS = {
    f"{task} {encoder.__name__}": functools.partial(
        lambda task, encoder, name: getattr(parts, task)(encoder(name)), task, encoder, name
    )
    for task in ("pretrain", "finetune", "linear_probe", "segment", "detect")
    for encoder, name in ((parts.vit, "vit_b"), (parts.swin, "swin_t"))
    if (task, name) != ("detect", "vit_b")
}


def small(name: str) -> ConfigDict:
    """A recipe that builds as it is, locked."""
    config = shrink(MAKERS[name]())
    if config.schedule.base_lr is None and config.schedule.peak_lr is None:  # which the recipes of a size set
        config.schedule.peak_lr = 1e-3
    if config.task == "linear_probe":
        config.checkpoint.init_from = "runs/pretrain"  # read by the first step, not by the building
    return config.lock()


@functools.cache
def recipe(name: str) -> dict[str, Any]:
    """Its keys and values."""
    return flatten(small(name))


def _floats(low: float, high: float, **options: bool) -> st.SearchStrategy[str]:
    return st.floats(low, high, **options).map(repr)


def _whole(low: int, high: int) -> st.SearchStrategy[str]:
    return st.integers(low, high).map(str)


def _ordered(values: st.SearchStrategy[Any], size: int = 2) -> st.SearchStrategy[str]:
    return st.lists(values, min_size=size, max_size=size).map(lambda each: ",".join(map(str, sorted(each))))


_BOOL = st.booleans().map(str)
_FRACTION, _BELOW_1 = _floats(0, 1), _floats(0, 1, exclude_max=True)
_POSITIVE = _floats(1e-9, 100)
_INTERVAL = _floats(0, 1e6) | st.sampled_from(["0.0", "0.1", "1.0"])

# What a key may be whatever the others are.
ALONE = {
    **dict.fromkeys(
        ("data.flip", "data.vertical_flip", "data.rotate90", "data.fast_decode", "data.zero_ignored"), _BOOL
    ),
    **dict.fromkeys(("data.allow_change", "model.remat", "eval.flip", "eval.write_masks", "data.skip_empty"), _BOOL),
    **dict.fromkeys(("model.batch_norm", "eval.knn.raw_pixels", "eval.knn.enabled"), _BOOL),
    **dict.fromkeys(("data.grayscale", "data.max_bad_fraction", "augment.erasing", "augment.switch_prob"), _FRACTION),
    **dict.fromkeys(
        (
            "data.crop_probability",
            "model.score_threshold",
        ),
        _FRACTION,
    ),
    **dict.fromkeys(("optimizer.b1", "optimizer.b2", "optimizer.momentum", "augment.label_smoothing"), _BELOW_1),
    **dict.fromkeys(("model.drop_path", "model.dropout", "data.val_fraction"), _BELOW_1),
    **dict.fromkeys(("optimizer.eps", "optimizer.clip_norm", "model.head_std", "eval.knn.temperature"), _POSITIVE),
    **dict.fromkeys(("augment.mixup", "augment.cutmix", "optimizer.weight_decay", "model.auxiliary_weight"), _INTERVAL),
    **dict.fromkeys(("checkpoint.every_epochs", "eval.every_epochs", "eval.knn.every_epochs"), _INTERVAL),
    **dict.fromkeys(("eval.rank.every_epochs", "eval.reconstruction.every_epochs"), _INTERVAL),
    **dict.fromkeys(
        ("checkpoint.every_steps", "checkpoint.keep_every_steps", "log.profile_at", "seed"), _whole(0, 10**6)
    ),
    **dict.fromkeys(("eval.every_steps", "eval.rank.num_images", "eval.reconstruction.num_images"), _whole(0, 9)),
    **dict.fromkeys(("eval.num_pictures", "eval.knn.max_train", "data.num_threads"), _whole(0, 9)),
    **dict.fromkeys(("checkpoint.keep_last", "log.every_steps", "eval.knn.k"), _whole(1, 10**6)),
    **dict.fromkeys(("data.prefetch_batches", "optimizer.max_bad_steps", "eval.batch_size"), _whole(1, 99)),
    **dict.fromkeys(("eval.resize", "eval.knn.resize", "eval.rank.resize"), _whole(0, 300)),
    "optimizer.ema_decay": _floats(0.01, 0.9999),
    "optimizer.layer_decay": _floats(0.01, 1),
    "schedule.warmup_steps": _whole(0, 2),
    "num_steps": _whole(4, 10**6),
    "data.high_bit_depth": st.sampled_from(["max", "percentile", "0:4095", "-1024:3071"]),
    "data.crop_scale": _ordered(st.floats(0.01, 1)),
    "data.crop_ratio": _ordered(st.floats(0.1, 9)),
    "data.ratio_range": _ordered(st.floats(0.1, 3)),
    "data.color_jitter": st.lists(st.floats(0, 0.5), min_size=4, max_size=4).map(lambda each: ",".join(map(str, each))),
    "data.brightness": _floats(0, 255),
    "data.contrast": _FRACTION,
    "data.max_class_fraction": _floats(0.01, 1),
    "data.saturation": _FRACTION,
    "data.hue": _floats(0, 180),
    "augment.randaugment": st.sampled_from(["", "rand-m9-mstd0.5-inc1", "rand-m5-n3-inc1", "rand-m10-p1-inc1"]),
    "model.dtype": st.sampled_from(["float32", "bfloat16", "float16"]),
    "model.attention": st.sampled_from(["auto", "xla"]),
    "model.mlp_ratio": _floats(0.5, 8),
    "model.epsilon": _floats(1e-12, 1e-3),
    "model.pool": st.just("mean"),
    "model.target.kind": st.sampled_from(["hog", "pixels"]),
    "model.target.bins": _whole(1, 60),
    "model.decoder.depth": _whole(0, 4),
    "model.mask_ratio": _floats(0.3, 0.7),
    "model.pool_scales": _ordered(st.integers(1, 6), 3),
    "model.auxiliary_channels": _whole(0, 40),
    "model.roi_samples": _whole(1, 64),
    "model.rpn_samples": _whole(4, 64),
    "model.anchor_scale": _floats(1, 16),
    "model.mask_convs": _whole(0, 4),
}


@st.composite
def _rate(draw: Any, name: str) -> dict[str, str]:
    """The one of the two rates that the recipe sets, and rates that its peak exceeds."""
    key = "schedule.base_lr" if recipe(name)["schedule.base_lr"] is not None else "schedule.peak_lr"
    low = {f"schedule.{other}": draw(_floats(0, 1e-5)) for other in ("min_lr", "warmup_lr")}
    return {key: draw(_floats(1e-3, 10)), **{other: value for other, value in low.items() if other in recipe(name)}}


@st.composite
def _micro_batches(draw: Any, name: str) -> dict[str, str]:
    """Masks are shared by parts of a micro-batch of 8, 16 or 32 examples; the tests have eight devices."""
    masks = (
        {"model.num_masks": draw(st.sampled_from(["1", "2", "4", "8"]))} if "model.num_masks" in recipe(name) else {}
    )
    return {"batch_size": "32", "accum_steps": draw(st.sampled_from(["1", "2", "4"])), **masks}


@st.composite
def _channels(draw: Any, name: str) -> dict[str, str]:
    """Mean and deviation have a value a channel; dense tasks, RandAugment and changes of color have three."""
    count = 3 if {"segment", "detect", "finetune"} & {name.split()[0]} else draw(st.sampled_from([1, 3, 4]))
    values = [",".join(draw(_floats(0.1, 0.9)) for _ in range(count)) for _ in range(2)]
    colors = {"data.color_jitter": "0.0,0.0,0.0,0.0", "data.grayscale": "0.0"} if count != 3 else {}
    return {"data.channels": str(count), "data.mean": f"({values[0]},)", "data.std": f"({values[1]},)", **colors}


@st.composite
def _taps(draw: Any, name: str) -> dict[str, str]:
    """Tapped layers, each with a cell that halves or doubles its token, and as many decoder widths."""
    if not name.startswith("pretrain"):
        return {}
    taps = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4, unique=True).map(sorted))
    strides = [16 if name.endswith("vit") else (8, 16, 32, 32)[tap - 1] for tap in taps]
    cells = [stride // draw(st.sampled_from([1, 2, 4])) for stride in strides]
    chosen = {
        "model.taps": taps,
        "model.target.cells": cells,
        "model.decoder.num_heads": [draw(st.sampled_from([1, 2, 4]))],
    }
    found = {key: ",".join(map(str, values)) for key, values in chosen.items()}
    return {key: text if key.endswith("heads") else f"({text},)" for key, text in found.items()} | (
        {"model.decoder.width": "(" + "16," * len(taps) + ")"}
        if name.endswith("swin")
        else {"model.decoder.width": "32"}
    )


GROUPS = (_rate, _micro_batches, _channels, _taps)


@st.composite
def legal(draw: Any) -> tuple[str, list[str]]:
    """(name of the recipe, "key=value" changes)."""
    name = draw(st.sampled_from(sorted(MAKERS)))
    head_alone = ("model.drop_path", "optimizer.layer_decay") if name.startswith("linear_probe") else ()
    keys = [key for key in ALONE if key in recipe(name) and key not in head_alone]
    values = {
        key: draw(ALONE[key]) for key in draw(st.lists(st.sampled_from(keys), min_size=1, max_size=6, unique=True))
    }
    for group in draw(st.lists(st.sampled_from(GROUPS), max_size=2, unique=True)):
        values |= draw(group(name))
    return name, [f"{key}={value}" for key, value in values.items()]
