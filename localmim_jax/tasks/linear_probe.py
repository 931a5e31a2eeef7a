"""Linear probing: fine-tuning with nothing but the head trained, on the features of a frozen encoder."""

import dataclasses

from ml_collections import ConfigDict

from localmim_jax.engine.task import Task
from localmim_jax.errors import ConfigError
from localmim_jax.tasks import finetune

model_config = finetune.model_config


def build(config: ConfigDict, workdir: str) -> Task:
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
    task = finetune.build(config, workdir)
    return dataclasses.replace(task, trainable=lambda path: path.startswith("head/"))
