"""A config becomes an `engine.task.Task` and the settings of the engine."""

from ml_collections import ConfigDict

from localmim_jax.engine.schedule import make_schedule
from localmim_jax.engine.settings import RunSettings
from localmim_jax.engine.task import Task
from localmim_jax.tasks.from_config import run_settings
from localmim_jax.tasks.lookup import task_module


def build_task(config: ConfigDict, workdir: str) -> tuple[Task, RunSettings]:
    """The task of a config, and the engine's settings.

    Args:
        config: see `configs/parts`.
        workdir: the run directory, where undecodable images are listed; "" for none.

    Raises:
        ConfigError: a value, or a combination of values, that cannot work.
        DataError: a missing, empty or mislabeled dataset.
    """
    module, settings = task_module(config), run_settings(config)
    task = module.build(config, workdir)
    # Made here too, since a schedule that does not fit the run should be refused before anything is computed.
    make_schedule(settings.schedule, task.batch_size, task.num_steps, task.steps_per_epoch)
    return task, settings
