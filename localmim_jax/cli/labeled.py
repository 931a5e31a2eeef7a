"""The labeled dataset of `localmim knn` and `localmim probe`: its flags, and the features of its images."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from absl import flags
from ml_collections import ConfigDict

from localmim_jax.errors import ConfigError
from localmim_jax.recipes import common_flags

if TYPE_CHECKING:
    from localmim_jax.api import Model
    from localmim_jax.tasks.inputs import LabeledSplits

NAMES = (
    *("data", "data_dir", "train_split", "test_split", "val_fraction", "resize", "high_bit_depth"),
    *("max_train", "batch_size"),
)


def define_flags(values: flags.FlagValues, train: str) -> None:
    """Adds the flags `NAMES`; `train` says what the images of the training split are for."""
    flags.DEFINE_string("data", None, "labeled dataset, as data.name in a config", flag_values=values)
    common_flags.define_data_dir(values, "as in the config")
    flags.DEFINE_string("train_split", "train", train, flag_values=values)
    flags.DEFINE_string("test_split", "validation", "the images to classify", flag_values=values)
    flags.DEFINE_float(
        "val_fraction",
        None,
        "fraction to hold out of a folder without a validation split; default: as in the run",
        0,
        1,
        flag_values=values,
    )
    common_flags.define_resize(values)
    common_flags.define_high_bit_depth(values)
    flags.DEFINE_integer(
        "max_train", 0, "number of training examples, evenly spaced; 0: all", flag_values=values, lower_bound=0
    )
    common_flags.define_batch_size(values, 256)


def labeled_features(
    model: "Model",
    *,
    data: str,
    data_dir: str = "",
    train_split: str = "train",
    test_split: str = "validation",
    val_fraction: float | None = None,
    resize: int | None = None,
    high_bit_depth: str | None = None,
    max_train: int = 0,
    batch_size: int = 256,
) -> tuple["LabeledSplits", Iterator[tuple[Any, dict[str, Any]]]]:
    """The dataset, and (pooled features float32 [b, d], batch) of its images. Arguments as the flags.

    A batch has "label" and "is_train" [b]. Changes `model.config` to this dataset.

    Raises:
        ConfigError: an impossible value, or a model without pooled features.
        DataError: the dataset cannot be read, or has no labels.
    """
    from localmim_jax.tasks import inputs, lookup

    lookup.require_features(model.config, model.origin)
    if batch_size < 1:
        raise ConfigError(f"--batch_size={batch_size}: at least 1 is needed")
    config = model.config
    config.batch_size = model.whole_batch(batch_size)
    config.data.data_dir = data_dir or config.data.data_dir
    if val_fraction is not None:
        with config.unlocked():
            config.data.update({"name": data, "val_fraction": val_fraction})
    short_side = model.eval_resize() if resize is None else resize
    section: dict[str, Any] = {
        "name": data,
        "train_split": train_split,
        "test_split": test_split,
        "high_bit_depth": high_bit_depth,
    }
    section |= {"resize": short_side, "max_train": max_train}
    splits = inputs.LabeledSplits(config, ConfigDict(section), key="--high_bit_depth")
    return splits, model.apply(lambda module, images: module.features(images).astype("float32"), splits())
