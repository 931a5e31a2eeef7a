"""The registry of tasks: a config becomes an `engine.task.Task` and the settings of the engine."""

import importlib

from ml_collections import ConfigDict

from localmim_jax.engine.schedule import make_schedule
from localmim_jax.engine.settings import RunSettings
from localmim_jax.engine.task import Task
from localmim_jax.errors import ConfigError
from localmim_jax.tasks.from_config import run_settings

# name: the module whose `build(config, workdir)` makes the task. Only the module that is needed is imported.
TASKS = {
    "pretrain": "localmim_jax.tasks.pretrain",
    "finetune": "localmim_jax.tasks.finetune",
    "linear_probe": "localmim_jax.tasks.linear_probe",
    "segment": "localmim_jax.segmentation.task",
    "detect": "localmim_jax.detection.task",
}


def build_task(config: ConfigDict, workdir: str) -> tuple[Task, RunSettings]:
    """The task of a config, and the engine's settings.

    Args:
        config: see `configs/parts`.
        workdir: the run directory, where undecodable images are listed; "" for none.

    Raises:
        ConfigError: a value, or a combination of values, that cannot work.
        DataError: a missing, empty or mislabeled dataset.
    """
    if config.task not in TASKS:
        raise ConfigError(f"task is {config.task!r}; it must be one of {', '.join(TASKS)}")
    settings = run_settings(config)
    task = importlib.import_module(TASKS[config.task]).build(config, workdir)
    # Made here too, since a schedule that does not fit the run should be refused before anything is computed.
    make_schedule(settings.schedule, task.batch_size, task.num_steps, task.steps_per_epoch)
    return task, settings
