"""The tasks: each wires a model, a loss, data and evaluations into one `engine.task.Task`. Wiring only."""

from ml_collections import ConfigDict

from localmim_jax.engine.schedule import make_schedule
from localmim_jax.engine.settings import RunSettings
from localmim_jax.engine.task import Task
from localmim_jax.errors import ConfigError


def build(config: ConfigDict, workdir: str) -> tuple[Task, RunSettings]:
    """The task of a config, and what the engine is told besides it.

    Args:
        config: see `configs/common.py`.
        workdir: the run directory, where undecodable images are listed; "" for none.

    Raises:
        ConfigError: a value, or a combination of values, that cannot work.
        DataError: a missing, empty or mislabelled dataset.
    """
    from localmim_jax.tasks import detect, finetune, linear_probe, pretrain, segment, settings

    builders = {
        "pretrain": pretrain.build,
        "finetune": finetune.build,
        "linear_probe": linear_probe.build,
        "detect": detect.build,
        "segment": segment.build,
    }
    if config.task not in builders:
        raise ConfigError(f"task is {config.task!r}; it must be one of {', '.join(builders)}")
    run = settings.run_settings(config)
    task = builders[config.task](config, workdir)
    # Made here too, since a schedule that does not fit the run should be refused before anything is computed.
    make_schedule(run.schedule, task.batch_size, task.num_steps, task.steps_per_epoch)
    return task, run
