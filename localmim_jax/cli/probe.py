"""Measure a linear probe of an encoder: logistic regression on frozen features.

    localmim probe --checkpoint=runs/vit_b --data=folder:/data/flowers
    localmim probe --checkpoint=released.pth --config=configs/vit_b_1600ep.py --data=tfds:imagenet2012

The checkpoint is a run directory, one of its checkpoints, or a file of weights. The feature is that of k-NN: the mean
of the normalized patch tokens of the last layer, for the whole, unmasked image. Features are standardized with the
statistics of the training split. A fifth of the training split is held out to choose the regularization strength;
then the classifier is fitted to the whole split by L-BFGS on the device. This works from a few images per class up to
all of ImageNet, as long as the features fit in the device's memory. The recipes configs/*_linear.py are the published
protocol: LARS with crops and flips.
"""

from typing import Any

from absl import flags
from ml_collections import ConfigDict

from localmim_jax.cli import labeled
from localmim_jax.errors import DataError
from localmim_jax.recipes import common_flags
from localmim_jax.text import columns

_CLASSES_SHOWN = 100


def define_flags(values: flags.FlagValues) -> None:
    common_flags.define_checkpoint(values)
    labeled.define_flags(values, "the images to fit to")
    common_flags.define_standard_merging(values)


def main(options: flags.FlagValues) -> None:
    common_flags.require(options, checkpoint="runs/quickstart", data="folder:/data/flowers")
    settings = {name: getattr(options, name) for name in labeled.NAMES}
    print(report(probe(options.checkpoint, options.config, options.standard_merging, **settings)))


def probe(
    checkpoint: str,
    config: ConfigDict | None = None,
    standard_merging: bool | None = None,
    **dataset: Any,
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
    from localmim_jax.tasks.logistic import fit_probe

    model = load(checkpoint, config, standard_merging=standard_merging)
    splits, features = labeled.labeled_features(model, **dataset)
    parts = [(np.asarray(feature), batch["label"], batch["is_train"]) for feature, batch in features]
    x, y, is_train = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    if y.min() < 0:
        raise DataError(f"a probe needs labels, and an example of {dataset['data']} has none")
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
