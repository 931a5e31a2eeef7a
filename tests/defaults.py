"""Settings with a recipe's values, of which a test changes what it is about.

The package's dataclasses repeat no value of a recipe, so that each has one home. Arguments are those of the dataclass.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from localmim_jax.configs import parts
from localmim_jax.engine import settings
from localmim_jax.ops.mixup import MixConfig

T = TypeVar("T")


def _fill(cls: type[T], values: Mapping[str, Any], args: tuple[Any, ...], changes: dict[str, Any]) -> T:
    names = [field.name for field in dataclasses.fields(cls)]
    given = {**dict(zip(names, args, strict=False)), **changes}
    return cls(**{name: values[name] for name in names if name in values} | given)


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
