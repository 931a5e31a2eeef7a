"""Settings with a recipe's values, of which a test changes what it is about.

The package's dataclasses repeat no value of a recipe, so that each has one home. Arguments are those of the dataclass.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import jax.numpy as jnp

from localmim_jax.configs import parts
from localmim_jax.data.config import DataConfig
from localmim_jax.detection.mask_rcnn import MaskRCNNConfig
from localmim_jax.engine import settings
from localmim_jax.method.localmim import LocalMIMConfig
from localmim_jax.method.targets import TargetConfig
from localmim_jax.models.classifier import ClassifierConfig
from localmim_jax.models.registry import VARIANTS
from localmim_jax.models.swin import SwinConfig
from localmim_jax.models.vit import ViTConfig
from localmim_jax.ops.mixup import MixConfig
from localmim_jax.segmentation.upernet import SegmenterConfig

T = TypeVar("T")


def _fill(cls: type[T], values: Mapping[str, Any], args: tuple[Any, ...], changes: dict[str, Any]) -> T:
    names = [field.name for field in dataclasses.fields(cls)]
    given = {**dict(zip(names, args, strict=False)), **changes}
    return cls(**{name: values[name] for name in names if name in values} | given)


def encoder_config(variant: str, *args: Any, **changes: Any) -> Any:
    """Any registered kind: the variant's sizes, float32, XLA's attention, color images of 224 px."""
    kind, sizes = VARIANTS[variant]
    recipe = next(keys for keys in (parts.vit(variant), parts.swin(variant)) if set(sizes) <= set(keys))
    values = {key: value for key, value in recipe.items() if value is not None}
    values |= {
        "image_size": (224, 224),
        "in_channels": 3,
        "dtype": jnp.float32,
        "attention": "xla",
        "scan_blocks": False,
    }
    return _fill(kind, {**sizes, **values}, args, changes)


def vit_config(*args: Any, **changes: Any) -> ViTConfig:
    """ViT-B/16."""
    return encoder_config("vit_b", *args, **changes)


def swin_config(*args: Any, **changes: Any) -> SwinConfig:
    """Swin-B."""
    return encoder_config("swin_b", *args, **changes)


def target_config(*args: Any, **changes: Any) -> TargetConfig:
    """HOG at the four scales of a ViT."""
    values = {**parts.pretrain(parts.vit("vit_b")).model.target, "cells": (4, 8, 16, 32)}
    return _fill(TargetConfig, values, args, changes)


def localmim_config(*args: Any, **changes: Any) -> LocalMIMConfig:
    """With ViT-B/16 and a mask for every image."""
    model = parts.pretrain(parts.vit("vit_b")).model
    values = {"encoder": vit_config(), "taps": (2, 4, 10, 12), "target": target_config(), "fusion": ()}
    values |= {f"decoder_{key}": value for key, value in model.decoder.items()}
    return _fill(LocalMIMConfig, {**values, "mask_ratio": model.mask_ratio}, args, changes)


def classifier_config(*args: Any, **changes: Any) -> ClassifierConfig:
    """With ViT-B/16."""
    values = {**parts.finetune(parts.vit("vit_b")).model, "encoder": vit_config(position="learned")}
    return _fill(ClassifierConfig, values, args, changes)


def segmenter_config(*args: Any, **changes: Any) -> SegmenterConfig:
    """`encoder` is needed."""
    return _fill(SegmenterConfig, parts.segment(parts.vit("vit_b")).model, args, changes)


def mask_rcnn_config(*args: Any, **changes: Any) -> MaskRCNNConfig:
    """`encoder` is needed."""
    return _fill(MaskRCNNConfig, parts.detect(parts.swin("swin_b")).model, args, changes)


def data_config(*args: Any, **changes: Any) -> DataConfig:
    """Of pre-training, in the order of seed 0; `name`, `image_size` and `batch_size` are needed."""
    values = {key: value for key, value in parts.pretrain(parts.vit("vit_b")).data.items() if key != "name"}
    return _fill(DataConfig, values | {"seed": 0}, args, changes)


def optimizer_settings(*args: Any, **changes: Any) -> settings.OptimizerSettings:
    return _fill(settings.OptimizerSettings, parts.pretrain(parts.vit("vit_b")).optimizer, args, changes)


def schedule_settings(*args: Any, **changes: Any) -> settings.ScheduleSettings:
    """A cosine without warm-up and without a rate, which a test sets."""
    return _fill(settings.ScheduleSettings, parts.run("pretrain", (224, 224), 2048).schedule, args, changes)


def mesh_settings(*args: Any, **changes: Any) -> settings.MeshSettings:
    return _fill(settings.MeshSettings, parts.run("pretrain", (224, 224), 2048).mesh, args, changes)


def checkpoint_settings(*args: Any, **changes: Any) -> settings.CheckpointSettings:
    """Without saves but the last."""
    values = {**parts.run("pretrain", (224, 224), 2048).checkpoint, "every_epochs": 0.0}
    return _fill(settings.CheckpointSettings, values, args, changes)


def log_settings(*args: Any, **changes: Any) -> settings.LogSettings:
    return _fill(settings.LogSettings, parts.run("pretrain", (224, 224), 2048).log, args, changes)


def run_settings(*args: Any, **changes: Any) -> settings.RunSettings:
    """In float32; `schedule` is needed."""
    values = {
        "optimizer": optimizer_settings(),
        "mesh": mesh_settings(),
        "checkpoint": checkpoint_settings(),
        "log": log_settings(),
        "seed": 0,
        "accum_steps": 1,
        "dtype": "float32",
    }
    return _fill(settings.RunSettings, values, args, changes)


def mix_config(*args: Any, **changes: Any) -> MixConfig:
    return _fill(MixConfig, parts.finetune(parts.vit("vit_b")).augment, args, changes)
