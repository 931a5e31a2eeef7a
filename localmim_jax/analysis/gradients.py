"""Plot the gradient norm of every layer of several runs (supplement, A.2).

    localmim analysis gradients --runs=runs/global,runs/fusion,runs/local --labels=Global,Fusion,Local \\
        --output=figure1

For each block of the encoder, this is the L2 norm of the gradient of all its parameters, for one batch of the run's own
task, averaged over batches. The default checkpoint is the middle of the schedule. A Swin's patch merging belongs to the
last block of its stage, as in layer-wise learning-rate decay.
"""

import itertools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from localmim_jax.analysis import plots, shared
from localmim_jax.analysis.shared import Values
from localmim_jax.build import build_task
from localmim_jax.errors import ConfigError
from localmim_jax.params import Tree, flatten, merge
from localmim_jax.tasks import lookup

LABELS = {"norm": "gradient norm"}


def layer_norms(gradient: Tree, layer: Any) -> jax.Array:
    """The L2 norm of each block's gradient: float32 [blocks].

    Args:
        gradient: of a model with an `encoder`.
        layer: (path) -> its layer, see `EncoderConfig.layer_of`: 0 for the embedding, blocks from 1.
    """
    squares: dict[int, jax.Array] = {}
    for path, leaf in flatten(gradient).items():
        number = layer(path)
        squares[number] = squares.get(number, jnp.float32(0)) + jnp.square(leaf.astype(jnp.float32)).sum()
    return jnp.sqrt(jnp.stack([squares[number] for number in range(1, layer("head"))]))


def measure(config: ConfigDict, checkpoint: Path, batches: int) -> Values:
    """{"norm": [blocks]}: the mean over that many training batches, each with its own masks.

    Raises:
        ConfigError, DataError, StorageError: task, data or checkpoint cannot be had.
    """
    if batches < 1:
        raise ConfigError(f"--batches={batches}: at least 1 is needed")
    graphdef, params, model_state = shared.model_of(config, checkpoint)
    task, _ = build_task(config, workdir="")
    layer = lookup.model_config(config).encoder.layer_of

    @jax.jit
    def norms(params: Tree, batch: dict[str, jax.Array], key: jax.Array) -> jax.Array:
        def loss(params: Tree) -> jax.Array:
            return task.loss(merge(graphdef, params, model_state), batch, key)[0]

        return layer_norms(jax.grad(loss)(params), layer)

    found = []
    for index, batch in enumerate(itertools.islice(task.train_batches(0), batches)):
        arrays = {name: jnp.asarray(array) for name, array in batch.items() if name != "id"}
        key = jax.random.fold_in(jax.random.key(config.seed), index)
        found.append(np.asarray(norms(params, arrays, key)))
    return {"norm": np.mean(found, axis=0)}


def define_flags(values: flags.FlagValues) -> None:
    shared.define_flags(values, at="middle", output="gradients")
    flags.DEFINE_integer("batches", 50, "number of training batches", flag_values=values)


def main(options: flags.FlagValues) -> None:
    series = shared.collect(options, lambda config, place: measure(config, place, options.batches))
    print("\n".join(plots.lines(Path(options.output), series, LABELS, "layer")))
