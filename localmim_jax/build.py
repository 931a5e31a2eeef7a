"""A config becomes an `engine.task.Task` and the settings of the engine."""

from ml_collections import ConfigDict

from localmim_jax.data.own import Given
from localmim_jax.engine.loggers.base import Logger
from localmim_jax.engine.loggers.wandb_logger import WeightsAndBiases
from localmim_jax.engine.schedule import make_schedule
from localmim_jax.engine.settings import RunSettings
from localmim_jax.engine.task import Task
from localmim_jax.errors import ConfigError
from localmim_jax.tasks.from_config import run_settings
from localmim_jax.tasks.lookup import task_module


def build_task(config: ConfigDict, workdir: str, given: Given | None = None) -> tuple[Task, RunSettings]:
    """The task of a config, and the engine's settings.

    Args:
        config: see `configs/parts`.
        workdir: the run directory, where undecodable images are listed; "" for none.
        given: a Python program's dataset and transform, for pre-training and classification.

    Raises:
        ConfigError: a value, or a combination of values, that cannot work.
        DataError: a missing, empty or mislabeled dataset.
    """
    module, settings = task_module(config), run_settings(config)
    if given is not None and config.task in ("segment", "detect"):
        raise ConfigError(f"the task {config.task} reads masks or objects: name a dataset with data.name instead")
    task = module.build(config, workdir) if given is None else module.build(config, workdir, given)
    # Made here too, since a schedule that does not fit the run should be refused before anything is computed.
    make_schedule(settings.schedule, task.batch_size, task.num_steps, task.steps_per_epoch)
    return task, settings


def loggers_of(config: ConfigDict) -> tuple[Logger, ...]:
    """The loggers that a config names beside TensorBoard and `metrics.jsonl`. Raises ConfigError: one cannot be had."""
    project = config.log.get("wandb")
    return (WeightsAndBiases(project),) if project else ()
