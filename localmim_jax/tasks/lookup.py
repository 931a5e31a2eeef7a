"""The registry of tasks: which module makes a task and its model from a config.

Modules are named rather than imported: segmentation and detection are above this package, and a run needs one of them.
"""

import importlib
from types import ModuleType

from ml_collections import ConfigDict

from localmim_jax.errors import ConfigError
from localmim_jax.models.base import ModelConfig

# name: the module whose `build(config, workdir)` makes the task, and whose `model_config(config)` its model.
TASKS = {
    "pretrain": "localmim_jax.tasks.pretrain",
    "finetune": "localmim_jax.tasks.finetune",
    "linear_probe": "localmim_jax.tasks.linear_probe",
    "segment": "localmim_jax.segmentation.task",
    "detect": "localmim_jax.detection.task",
}


def task_module(config: ConfigDict) -> ModuleType:
    """The module of a config's task. Raises ConfigError: there is no such task."""
    if config.task not in TASKS:
        raise ConfigError(f"task is {config.task!r}; it must be one of {', '.join(TASKS)}")
    return importlib.import_module(TASKS[config.task])


def model_config(config: ConfigDict) -> ModelConfig:
    """The model of a run's config, whatever its task.

    Raises:
        ConfigError: no such task, or an impossible model.
    """
    return task_module(config).model_config(config)


def require_features(config: ConfigDict, origin: str) -> None:
    """Raises ConfigError where the model of a config has no pooled feature; `origin` names it."""
    if not model_config(config).has_features:
        raise ConfigError(
            f"{origin} is of the task {config.task}, whose model has no pooled feature: give the checkpoint "
            "that it was initialized from"
        )
