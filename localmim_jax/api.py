"""From a run, a checkpoint or a weights file to a model with its parameters."""

from typing import Any

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from localmim_jax import params as trees
from localmim_jax.convert import files
from localmim_jax.convert.load import check
from localmim_jax.convert.weights import Weights
from localmim_jax.errors import ConfigError
from localmim_jax.params import Tree
from localmim_jax.tasks import initialize
from localmim_jax.tasks.lookup import model_config


def load_model(config: ConfigDict, checkpoint: str, standard_merging: bool = False) -> tuple[Any, Tree, Tree]:
    """(graph definition, parameters, model state) of a config's model with a checkpoint's parameters, on the host.

    Raises:
        ConfigError, DataError, StorageError: the checkpoint cannot be read or does not fill the model.
    """
    if not model_config(config).has_features:
        raise ConfigError(
            f"{checkpoint} is a run of the task {config.task}, whose model has no such features: give what it was "
            "initialized from"
        )
    return fill_model(config, initialize.read(checkpoint, standard_merging))


def config_of(checkpoint: str, config: ConfigDict | None) -> ConfigDict:
    """`config`, or where it is None the config of the run that the checkpoint belongs to. Raises DataError: no run."""
    return initialize.run_config(files.local_path(checkpoint)) if config is None else config


def fill_model(config: ConfigDict, weights: Weights, whole: bool = False) -> tuple[Any, Tree, Tree]:
    """The same with weights that have been read already. Raises ConfigError where they do not fill the model.

    `whole` asks for every parameter and statistic; otherwise heads that features do not read may be missing.
    """
    model = model_config(config)

    # What a checkpoint may lack are norms, which begin like this, and decoders and heads, which features do not read.
    def begin(path: str, leaf: Any) -> np.ndarray:
        return (np.ones if path.endswith("scale") else np.zeros)(leaf.shape, np.float32)

    graphdef, *abstract = trees.split(model.make)
    params, model_state = (trees.map_with_path(begin, tree) for tree in abstract)
    params, model_state, report = initialize.load_into(weights, params, model_state, model)
    logging.info("parameters from %s: %s\n%s", report.origin, report.summary(), report.table())
    check(report)
    if whole and (missing := [row.path for row in report.rows if row.status == "initialized"]):
        raise ConfigError(f"{report.origin} has no {', '.join(missing[:4])} for this model: its classes may be others")
    return graphdef, params, model_state
