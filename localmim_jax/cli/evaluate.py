"""Evaluate a checkpoint once, without training: accuracy, k-NN, losses.

    localmim evaluate --checkpoint=runs/vit_b_finetune
    localmim evaluate --checkpoint=released.pth --config=configs/vit_b_1600ep_finetune.py \\
        --config.data.name=folder:/data/imagenet

All evaluations of the config are run. The checkpoint is a run directory (its newest good checkpoint is read), one of
its checkpoints, or a file of this project, the release, MAE or timm. Without --config, the run's own config is used.
If the run kept a moving average of the parameters, the average is evaluated.
"""

from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from localmim_jax.errors import ConfigError
from localmim_jax.recipes import common_flags


def define_flags(values: flags.FlagValues) -> None:
    common_flags.define_checkpoint(values, "recipe; default: the run's; --config.a.b=value changes a key of one given")


def main(options: flags.FlagValues) -> None:
    common_flags.require(options, checkpoint="runs/vit_b_finetune")
    results = evaluate(options.checkpoint, options.config)
    for name, value in results.items():
        if np.ndim(value) == 0:
            print(f"{name} {value:.6g}")


def evaluate(checkpoint: str, config: ConfigDict | None = None) -> dict[str, Any]:
    """Everything that the config's task evaluates, by name.

    Args:
        checkpoint: see the top of this file.
        config: None for that of the run the checkpoint belongs to.

    Raises:
        ConfigError: the config has no evaluation, or the checkpoint does not fill its model.
        DataError, StorageError: something cannot be read.
    """
    from localmim_jax.api import config_of, fill_model
    from localmim_jax.build import build_task
    from localmim_jax.engine import mesh as meshes
    from localmim_jax.engine.evaluate import Evaluator
    from localmim_jax.engine.state import StateSpec
    from localmim_jax.tasks import initialize

    config = config_of(checkpoint, config)
    config.checkpoint.init_from = checkpoint
    task, settings = build_task(config, "")
    if not task.evaluations:
        raise ConfigError("this config has no evaluation: set eval.knn.enabled=true, or give a fine-tuning config")
    weights = initialize.read(checkpoint, config.checkpoint.standard_merging)
    _, params, model_state = fill_model(config, weights, whole=True)
    spec = StateSpec(task, settings, meshes.make_mesh(settings.mesh))
    kept = {"params": params, "model_state": model_state}
    state = meshes.place_state(kept, {name: spec.shardings[name] for name in kept}) | {"ema": {}}
    results: dict[str, Any] = {}
    for evaluation in task.evaluations:
        results |= Evaluator(evaluation, spec)(state) or {}
    return results
