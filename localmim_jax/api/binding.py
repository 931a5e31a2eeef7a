"""From weights to a module's parameters: every array is used or left out for a reason, every parameter is filled."""

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


def config_of(checkpoint: str, config: ConfigDict | None) -> ConfigDict:
    """`config`, or where it is None the config of the run that the checkpoint belongs to. Raises DataError: no run."""
    return initialize.run_config(files.local_path(checkpoint)) if config is None else config


def fill_model(config: ConfigDict, weights: Weights, whole: bool = False) -> tuple[Any, Tree, Tree]:
    """(graph definition, parameters, model state) of a config's model with these weights, on the host.

    `whole` asks for every parameter and statistic; otherwise heads that features do not read may be missing.

    Raises:
        ConfigError: the weights do not fill the model.
    """
    model = model_config(config)

    # What a checkpoint may lack are norms, which begin like this, and decoders and heads, which features do not read.
    # The variance is a probe's, whose batch norm `initialize.read` has made part of its head.
    def begin(path: str, leaf: Any) -> np.ndarray:
        return (np.ones if path.endswith(("scale", "var")) else np.zeros)(leaf.shape, np.float32)

    graphdef, *abstract = trees.split(model.make)
    params, model_state = (trees.map_with_path(begin, tree) for tree in abstract)
    params, model_state, report = initialize.load_into(weights, params, model_state, model)
    plain = all(row.status in ("loaded", "ignored") for row in report.rows)  # then the table would say nothing new
    logging.info("parameters from %s: %s%s", report.origin, report.summary(), "" if plain else f"\n{report.table()}")
    check(report)
    if whole and (missing := [row.path for row in report.rows if row.status == "initialized"]):
        raise ConfigError(f"{report.origin} has no {', '.join(missing[:4])} for this model: train it first")
    return graphdef, params, model_state
