"""Measure a linear probe of an encoder: logistic regression on frozen features.

    localmim probe --checkpoint=runs/vit_b --data=folder:/data/flowers
    localmim probe --checkpoint=released.pth --config=configs/vit_b_1600ep.py --data=tfds:imagenet2012

The checkpoint is a run directory, one of its checkpoints, or a file of weights. The feature is the one of k-NN: the
mean of the last layer's normalized patch tokens of a whole, unmasked image. Features are standardized on the training
split, the strength of the regularization is chosen on a fifth of it, and the classifier is then fitted to all of it by
L-BFGS on the device. It works from a few images a class to all of ImageNet, as far as the features fit into the
device's memory. The published linear probes, by LARS with crops and flips, are the recipes configs/*_linear.py.
"""

from absl import flags
from ml_collections import ConfigDict

from localmim_jax.errors import ConfigError, DataError
from localmim_jax.recipes import common_flags
from localmim_jax.text import columns

_CLASSES_SHOWN = 100


def define_flags(values: flags.FlagValues) -> None:
    common_flags.define_checkpoint(values)
    flags.DEFINE_string("data", None, "labeled dataset, as data.name in a config", flag_values=values)
    common_flags.define_data_dir(values, "the config's")
    flags.DEFINE_string("train_split", "train", "the images to fit to", flag_values=values)
    flags.DEFINE_string("test_split", "validation", "the images to classify", flag_values=values)
    common_flags.define_resize(values)
    flags.DEFINE_integer(
        "max_train", 0, "evenly spaced examples of the training split; 0: all", flag_values=values, lower_bound=0
    )
    common_flags.define_batch_size(values, 256)
    common_flags.define_standard_merging(values)


def main(options: flags.FlagValues) -> None:
    common_flags.require(options, checkpoint="runs/quickstart", data="folder:/data/flowers")
    names = ("data", "data_dir", "train_split", "test_split", "resize", "max_train", "batch_size")
    settings = {name: getattr(options, name) for name in names}
    print(report(probe(options.checkpoint, options.config, options.standard_merging, **settings)))


def probe(
    checkpoint: str,
    config: ConfigDict | None = None,
    standard_merging: bool | None = None,
    *,
    data: str,
    data_dir: str = "",
    train_split: str = "train",
    test_split: str = "validation",
    resize: int = 0,
    max_train: int = 0,
    batch_size: int = 256,
) -> dict:
    """The probe's result. Arguments as the flags; a `config` of None is that of the run, or inferred from a file.

    Returns:
        {"accuracy" and "train_accuracy" in 0..1, "C", "sweep": (C, held-out accuracy, cross entropy) rows, "classes":
        {name: (accuracy or NaN, number of test images)}, "train_examples", "test_examples"}.

    Raises:
        ConfigError: an impossible value, or a checkpoint that does not fill the model.
        DataError, StorageError: something cannot be read, or has no labels.
    """
    import numpy as np

    from localmim_jax.api import load
    from localmim_jax.tasks import inputs, lookup
    from localmim_jax.tasks.logistic import fit_probe

    if batch_size < 1:
        raise ConfigError(f"--batch_size={batch_size}: at least 1 is needed")
    model = load(checkpoint, config, standard_merging=standard_merging)
    config = model.config
    if not lookup.model_config(config).has_features:
        raise ConfigError(f"{checkpoint} is of the task {config.task}: give what it was initialized from")
    config.batch_size = model.whole_batch(batch_size)
    config.data.data_dir = data_dir or config.data.data_dir
    section = {"name": data, "train_split": train_split, "test_split": test_split}
    splits = inputs.LabeledSplits(config, ConfigDict(section | {"resize": resize, "max_train": max_train}))
    parts = [
        (np.asarray(feature), batch["label"], batch["is_train"])
        for feature, batch in model.apply(lambda module, images: module.features(images).astype("float32"), splits())
    ]
    x, y, is_train = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    if y.min() < 0:
        raise DataError(f"a probe needs labels, and an example of {data} has none")
    names = splits.class_names
    fitted = fit_probe(x[is_train], y[is_train], len(names))
    right, labels = fitted.predict(x) == y, y[~is_train]
    of_class = {
        name: (float(right[~is_train][labels == label].mean()) if (labels == label).any() else float("nan"))
        for label, name in enumerate(names)
    }
    return {
        "accuracy": float(right[~is_train].mean()),
        "train_accuracy": float(right[is_train].mean()),
        "C": fitted.strength,
        "sweep": fitted.sweep,
        "classes": {name: (value, int((labels == i).sum())) for i, (name, value) in enumerate(of_class.items())},
        "train_examples": int(is_train.sum()),
        "test_examples": len(labels),
    }


def report(result: dict) -> str:
    """The result as tables for the console."""
    lines = ["regularization, chosen on a fifth of the training split:", ""]
    rows = [("  C", "held-out accuracy", "cross entropy")]
    for strength, accuracy, loss in result["sweep"]:
        chosen = "  <- chosen" if strength == result["C"] else ""
        rows.append((f"  {strength:.0e}", f"{accuracy:.4f}", f"{loss:.4f}{chosen}"))
    lines += [columns(rows), ""]
    classes = list(result["classes"].items())
    shown = classes if len(classes) <= _CLASSES_SHOWN else sorted(classes, key=lambda item: item[1][0])[:20]
    if len(shown) < len(classes):
        lines.append(f"the 20 worst of {len(classes)} classes:")
    lines.append(columns([("  class", "accuracy", "images"), *((f"  {n}", f"{a:.4f}", str(c)) for n, (a, c) in shown)]))
    names = ("accuracy", "train_accuracy", "C", "train_examples", "test_examples")
    return "\n".join([*lines, "", "  ".join(f"{name} {result[name]:.6g}" for name in names)])
