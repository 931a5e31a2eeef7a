"""Linear probing: fine-tuning with nothing but the head trained, on the features of a frozen encoder."""

import dataclasses

import jax.numpy as jnp
from ml_collections import ConfigDict

from localmim_jax.data.own import Given
from localmim_jax.engine.optim import LARS_TRUST_COEFFICIENT
from localmim_jax.engine.schedule import make_schedule
from localmim_jax.engine.settings import RunSettings
from localmim_jax.engine.task import Task
from localmim_jax.errors import ConfigError
from localmim_jax.tasks import finetune, from_config

model_config = finetune.model_config

# Times the norm of the head as it was drawn. Measured in docs/finetuning.md.
_MIN_CHANGE = 3
_GOOD_CHANGE = 15


def build(config: ConfigDict, workdir: str, given: Given | None = None) -> Task:
    """The linear-probe task of a config; see `finetune.build`.

    Raises:
        ConfigError: as there; or there is no encoder to probe, or something would disturb it.
    """
    if config.checkpoint.init_from is None:
        raise ConfigError("a linear probe needs a pre-trained encoder: set checkpoint.init_from to a run or a file")
    if config.model.trained_blocks is not None or config.optimizer.layer_decay is not None or config.model.drop_path:
        raise ConfigError(
            "a linear probe trains the head alone, so model.trained_blocks, optimizer.layer_decay and model.drop_path "
            "do nothing there: leave them out, or set task='finetune'"
        )
    task = finetune.build(config, workdir, given)
    warning = too_small_a_rate(from_config.run_settings(config), task)
    return dataclasses.replace(
        task,
        trainable=lambda path: path.startswith("head/"),
        warnings=(*task.warnings, *([warning] if warning else [])),
    )


def too_small_a_rate(settings: RunSettings, task: Task) -> str:
    """What to do about a rate at which LARS leaves the head nearly as it was drawn; "" where there is no such risk.

    LARS makes a step as long as rate x 0.001 x the norm of the kernel, whatever the gradient, and momentum multiplies
    this by 10. So the sum of the rates bounds how far the head gets: 225 times its norm in MAE's protocol for ImageNet,
    but 0.016 times with 90 images in batches of 30, where `base_lr` x batch / 256 is 0.012 and steps are few.

    Raises:
        ConfigError: a schedule that does not fit the run.
    """
    if settings.optimizer.name != "lars":
        return ""
    schedule = make_schedule(settings.schedule, task.batch_size, task.num_steps, task.steps_per_epoch)
    step_length = LARS_TRUST_COEFFICIENT / (1 - settings.optimizer.momentum)
    change = step_length * float(jnp.sum(schedule(jnp.arange(task.num_steps))))
    if change >= _MIN_CHANGE:
        return ""
    key = "peak_lr" if settings.schedule.base_lr is None else "base_lr"
    better = getattr(settings.schedule, key) * _GOOD_CHANGE / change
    return (
        f"the head will hardly be trained: LARS changes it by at most {change:.2g} times its initial norm in "
        f"{task.num_steps} steps of this rate, and about {_GOOD_CHANGE} times is needed; set "
        f"schedule.{key}={better:.2g}, or use localmim probe, which has no rate to choose"
    )
