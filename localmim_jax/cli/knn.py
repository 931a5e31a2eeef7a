"""Measure the k-NN accuracy of an encoder's features on a labeled dataset.

    localmim knn --checkpoint=runs/vit_b --data=tfds:imagenet2012
    localmim knn --checkpoint=released.pth --config=configs/vit_b_1600ep.py --data=folder:/data/imagenet

The checkpoint is a run directory (its newest good checkpoint), one of its checkpoints, or a file of this project, the
release, MAE or timm. Without --config, the run's own is taken. The feature is the mean of the last layer's normalized
patch tokens of a whole, unmasked image; of a checkpoint without a norm for them, the norm is the plain one.
"""

from absl import flags
from ml_collections import ConfigDict

from localmim_jax.errors import ConfigError
from localmim_jax.recipes import common_flags


def define_flags(values: flags.FlagValues) -> None:
    common_flags.define_checkpoint(values)
    flags.DEFINE_string("data", None, "labeled dataset, as data.name in a config", flag_values=values)
    common_flags.define_data_dir(values, "the config's")
    flags.DEFINE_string("train_split", "train", "the memory bank", flag_values=values)
    flags.DEFINE_string("test_split", "validation", "the images to classify", flag_values=values)
    flags.DEFINE_float(
        "val_fraction",
        None,
        "of a folder without a validation part: see data.val_fraction; default: the run's",
        0,
        1,
        flag_values=values,
    )
    flags.DEFINE_integer("k", 20, "neighbors", flag_values=values, lower_bound=1)
    flags.DEFINE_float("temperature", 0.07, "of the votes' weights", flag_values=values)
    common_flags.define_resize(values)
    flags.DEFINE_integer(
        "max_train", 0, "evenly spaced examples of the memory bank; 0: all", flag_values=values, lower_bound=0
    )
    common_flags.define_batch_size(values, 256)
    common_flags.define_standard_merging(values)


def main(options: flags.FlagValues) -> None:
    common_flags.require(options, checkpoint="runs/quickstart", data="folder:/data/imagenet")
    names = ("data", "data_dir", "train_split", "test_split", "k", "temperature", "resize", "max_train", "batch_size")
    settings = {name: getattr(options, name) for name in (*names, "val_fraction")}
    results = knn(options.checkpoint, options.config, options.standard_merging, **settings)
    print("  ".join(f"{name} {value:.6g}" for name, value in results.items()))


def knn(
    checkpoint: str,
    config: ConfigDict | None = None,
    standard_merging: bool | None = None,
    *,
    data: str,
    data_dir: str = "",
    train_split: str = "train",
    test_split: str = "validation",
    val_fraction: float | None = None,
    k: int = 20,
    temperature: float = 0.07,
    resize: int = 0,
    max_train: int = 0,
    batch_size: int = 256,
) -> dict[str, float]:
    """What `evals.knn.KNN` computes. Arguments as the flags; a `config` of None is that of the checkpoint's run.

    Raises:
        ConfigError: an impossible value, or a checkpoint that does not fill the model.
        DataError, StorageError: something cannot be read, or has no labels.
    """
    from localmim_jax.api import config_of, load
    from localmim_jax.evals.knn import KNN
    from localmim_jax.tasks import inputs

    config = config_of(checkpoint, config)
    if batch_size < 1:
        raise ConfigError(f"--batch_size={batch_size}: at least 1 is needed")
    if not temperature > 0:
        raise ConfigError(f"--temperature={temperature}: it must be above 0")
    model = load(checkpoint, config, standard_merging=standard_merging)
    config = model.config
    config.batch_size = model.whole_batch(batch_size)
    config.data.data_dir = data_dir or config.data.data_dir
    if val_fraction is not None:
        with config.unlocked():
            config.data.update({"name": data, "val_fraction": val_fraction})
    section = {"name": data, "train_split": train_split, "test_split": test_split}
    splits = inputs.LabeledSplits(config, ConfigDict(section | {"resize": resize, "max_train": max_train}))
    metric = KNN(k, temperature)
    for feature, batch in model.apply(lambda module, images: module.features(images).astype("float32"), splits()):
        metric.update({"feature": feature}, batch)
    return metric.compute()
