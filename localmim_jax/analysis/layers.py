"""Plot the k-NN accuracy of every layer and the CKA between two runs' layers.

    localmim analysis layers --runs=runs/global,runs/local --labels=Global,Local --output=layers

The feature of a layer is the mean of its normalized patch tokens (layer norm without scale and bias), for whole
images. Layers are the blocks of a ViT or the stages of a Swin. k-NN reads the labeled splits in the runs' `eval.knn`.
CKA compares all layers of the first two runs on the same images and is written to OUTPUT_cka.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from localmim_jax.analysis import plots, shared
from localmim_jax.analysis.shared import Values
from localmim_jax.errors import ConfigError
from localmim_jax.evals.knn import knn_accuracy
from localmim_jax.params import merge
from localmim_jax.tasks import inputs

LABELS = {"knn": "k-NN accuracy"}


def cka(x: np.ndarray, y: np.ndarray) -> float:
    """Linear centered kernel alignment of two sets of features, in 0..1; 0 where one does not vary.

    Args:
        x, y: [n, d] and [n, e], of the same n examples.
    """
    x, y = (np.asarray(z, np.float64) - np.mean(z, axis=0, dtype=np.float64) for z in (x, y))
    scale = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.linalg.norm(y.T @ x) ** 2 / scale) if scale > 0 else 0.0


def feature_function(config: ConfigDict, checkpoint: Path) -> Callable[[jax.Array], list[np.ndarray]]:
    """(normalized images [b, h, w, c]) -> the feature of every layer, float32 [b, d] each."""
    graphdef, params, model_state = shared.model_of(config, checkpoint)

    @jax.jit
    def compute(params: Any, images: jax.Array) -> list[jax.Array]:
        encoder = merge(graphdef, params, model_state).encoder
        tokens = encoder(images, taps=tuple(range(1, encoder.config.num_layers + 1)))
        return [_pooled(x[:, encoder.config.num_prefix_tokens :].astype(jnp.float32)) for x in tokens]

    return lambda images: [np.asarray(feature) for feature in compute(params, images)]


def _pooled(tokens: jax.Array) -> jax.Array:
    mean, variance = tokens.mean(axis=-1, keepdims=True), tokens.var(axis=-1, keepdims=True)
    return ((tokens - mean) / jnp.sqrt(variance + 1e-6)).mean(axis=1)


def measure(config: ConfigDict, checkpoint: Path, k: int = 20, max_train: int = 0) -> Values:
    """{"knn": [layers]}: weighted k-NN accuracy of every layer's feature, in 0..1, as in `evals.knn`.

    Raises:
        ConfigError, DataError, StorageError: model, labeled splits or checkpoint cannot be had.
    """
    if "knn" not in config.eval:
        raise ConfigError(
            f"{checkpoint} is of the task {config.task}, whose config has no eval.knn to score layers on: give "
            "pre-training runs"
        )
    features, normalize = feature_function(config, checkpoint), inputs.normalizer(config)
    section = ConfigDict(config.eval.knn.to_dict() | ({"max_train": max_train} if max_train else {}))
    parts: list[tuple[list[np.ndarray], np.ndarray, bool]] = []
    for batch in inputs.LabeledSplits(config, section)():
        valid = np.asarray(batch["valid"])
        found = [feature[valid] for feature in features(normalize(jnp.asarray(batch["image"])))]
        parts.append((found, np.asarray(batch["label"])[valid], bool(batch["is_train"][0])))
    sides = [[part for part in parts if part[2] is is_train] for is_train in (True, False)]
    labels = [np.concatenate([part[1] for part in side]) for side in sides]
    classes = int(max(label.max() for label in labels)) + 1
    accuracy = []
    for layer in range(len(parts[0][0])):
        train, test = (np.concatenate([part[0][layer] for part in side]) for side in sides)
        accuracy.append(knn_accuracy(train, labels[0], test, labels[1], k, section.temperature, classes))
    return {"knn": np.array(accuracy)}


def compare(
    first: tuple[ConfigDict, Path], second: tuple[ConfigDict, Path], images: int, split: str = ""
) -> np.ndarray:
    """CKA of every layer of one run (rows) with every layer of another, on the same images: [layers, layers].

    Args:
        first, second: (config, checkpoint).
        images: how many; the first run's dataset and image format are used for both.
    """
    functions = [feature_function(*run) for run in (first, second)]
    if tuple(first[0].image_size) != tuple(second[0].image_size) or first[0].data.channels != second[0].data.channels:
        raise ConfigError("the two runs see images of different sizes or channels, so their layers cannot be compared")
    found: list[list[list[np.ndarray]]] = [[], []]
    for batch, valid in shared.images_of(first[0], images, split):
        for features, function in zip(found, functions, strict=True):
            features.append([feature[valid] for feature in function(batch)])
    layers = [[np.concatenate(parts) for parts in zip(*features, strict=True)] for features in found]
    return np.array([[cka(x, y) for y in layers[1]] for x in layers[0]])


def define_flags(values: flags.FlagValues) -> None:
    shared.define_flags(values, at="last", output="layers")
    flags.DEFINE_integer("k", 20, "number of neighbors", flag_values=values, lower_bound=1)
    flags.DEFINE_integer(
        "max_train",
        0,
        "number of examples in the memory bank of k-NN; 0: as in the run",
        flag_values=values,
        lower_bound=0,
    )
    flags.DEFINE_integer("images", 512, "number of images for CKA", flag_values=values)


def main(options: flags.FlagValues) -> None:
    looked_at = []

    def knn(config: ConfigDict, checkpoint: Path) -> Values:
        looked_at.append((config, checkpoint))
        return measure(config, checkpoint, options.k, options.max_train)

    series = shared.collect(options, knn)
    written = plots.lines(Path(options.output), series, LABELS, "layer")
    if len(looked_at) > 1:
        grid = compare(looked_at[0], looked_at[1], options.images)
        names = [*(options.labels or [Path(run).name for run in options.runs])][:2]
        written += plots.grid(Path(f"{options.output}_cka"), grid, names, "linear CKA")
    print("\n".join(written))
