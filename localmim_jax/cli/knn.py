"""Measure the k-NN accuracy of an encoder's features on a labeled dataset.

    localmim knn --checkpoint=runs/vit_b --data=tfds:imagenet2012
    localmim knn --checkpoint=released.pth --config=configs/vit_b_1600ep.py --data=folder:/data/imagenet

The checkpoint is a run directory (its newest good checkpoint is read), one of its checkpoints, or a file of this
project, the release, MAE or timm. Without --config, the run's own config is used. The feature is the mean of the
normalized patch tokens of the last layer, for the whole, unmasked image. If the checkpoint has no norm for them, a
layer norm without scale and bias is used.
"""

from typing import Any

from absl import flags
from ml_collections import ConfigDict

from localmim_jax.cli import labeled
from localmim_jax.errors import ConfigError
from localmim_jax.recipes import common_flags


def define_flags(values: flags.FlagValues) -> None:
    common_flags.define_checkpoint(values)
    labeled.define_flags(values, "the memory bank")
    flags.DEFINE_integer("k", 20, "number of neighbors", flag_values=values, lower_bound=1)
    flags.DEFINE_float("temperature", 0.07, "temperature of the vote weights", flag_values=values)
    common_flags.define_standard_merging(values)


def main(options: flags.FlagValues) -> None:
    common_flags.require(options, checkpoint="runs/quickstart", data="folder:/data/imagenet")
    settings = {name: getattr(options, name) for name in (*labeled.NAMES, "k", "temperature")}
    results = knn(options.checkpoint, options.config, options.standard_merging, **settings)
    print("  ".join(f"{name} {value:.6g}" for name, value in results.items()))


def knn(
    checkpoint: str,
    config: ConfigDict | None = None,
    standard_merging: bool | None = None,
    *,
    k: int = 20,
    temperature: float = 0.07,
    **dataset: Any,
) -> dict[str, float]:
    """What `evals.knn.KNN` computes. Arguments as the flags; a `config` of None is that of the checkpoint's run.

    Raises:
        ConfigError: an impossible value, or a checkpoint that does not fill the model.
        DataError, StorageError: something cannot be read, or has no labels.
    """
    from localmim_jax.api import load
    from localmim_jax.evals.knn import KNN

    if not temperature > 0:
        raise ConfigError(f"--temperature={temperature}: it must be above 0")
    model = load(checkpoint, config, standard_merging=standard_merging)
    _, features = labeled.labeled_features(model, **dataset)
    metric = KNN(k, temperature)
    for feature, batch in features:
        metric.update({"feature": feature}, batch)
    return metric.compute()
