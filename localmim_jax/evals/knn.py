"""Weighted k-nearest-neighbor classification of frozen features: how good they are, without training anything.

A query's neighbors are the k most similar examples of the memory bank by cosine; each votes for its label with weight
exp(similarity / temperature). Exact, in float32, on the device, in blocks, so that ImageNet's bank fits in the host's
memory and a block of it in the device's.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from localmim_jax.errors import ConfigError, DataError

_QUERY_BLOCK = 512
_BANK_BLOCK = 32768


class KNN:
    """Metric (see `engine.task`): collects features of a memory bank and of queries, then classifies the queries.

    `update` takes outputs {"feature": [b, d]} and a batch with "label" int [b], "id" int [b] and bool "is_train" [b]:
    True for the memory bank, False for the queries. Neither the order nor the grouping of the batches matters.
    With `raw_pixels`, which also needs "image" uint8 [b, h, w, c], the pixels are classified beside the features: what
    an encoder is worth is seen only against what the dataset gives away by itself.
    """

    def __init__(self, k: int, temperature: float, raw_pixels: bool = False):
        _check_settings(k, temperature)
        self.k, self.temperature, self.raw_pixels = k, temperature, raw_pixels
        self._parts: list[tuple[np.ndarray, ...]] = []

    def update(self, outputs: Mapping[str, Any], batch: Mapping[str, np.ndarray]) -> None:
        feature = np.asarray(outputs["feature"], np.float32)
        pixels = batch["image"].copy() if self.raw_pixels else np.empty((len(feature), 0), np.uint8)
        self._parts.append((feature, pixels, batch["label"].copy(), batch["id"].copy(), batch["is_train"].copy()))

    def compute(self) -> dict[str, float]:
        """{"accuracy" in 0..1, "k", "temperature", "train_examples", "test_examples"}; k is what was really used.

        With `raw_pixels` also "raw_pixel_accuracy". Accuracy is NaN where a feature is not finite. Raises `DataError`
        without a memory bank or without queries.
        """
        if not self._parts:
            raise DataError("k-NN was given no example; check eval.knn.name and its splits")
        feature, pixels, label, example, is_train = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        bank, queries = np.flatnonzero(is_train), np.flatnonzero(~is_train)
        for rows, split in ((bank, "train_split"), (queries, "test_split")):
            if not len(rows):
                raise DataError(f"k-NN was given no example of eval.knn.{split}")
        if label.min() < 0:
            raise DataError(f"k-NN needs labels, and example {example[label.argmin()]} of eval.knn.name has none")
        bank = bank[np.argsort(example[bank], kind="stable")]  # equal similarities are then broken alike everywhere

        def accuracy(x: np.ndarray) -> float:
            num_classes = int(label.max()) + 1
            return knn_accuracy(x[bank], label[bank], x[queries], label[queries], self.k, self.temperature, num_classes)

        return {
            "accuracy": accuracy(feature),
            **({"raw_pixel_accuracy": accuracy(pixels)} if self.raw_pixels else {}),
            "k": float(min(self.k, len(bank))),
            "temperature": self.temperature,
            "train_examples": float(len(bank)),
            "test_examples": float(len(queries)),
        }


def knn_accuracy(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
    k: int,
    temperature: float,
    num_classes: int,
) -> float:
    """Share of queries, in 0..1, whose label wins the weighted vote; see `knn_predictions`.

    Args:
        test_y: int labels [m] in 0..num_classes-1.

    Returns:
        The accuracy; NaN if a feature is not finite.

    Raises:
        ConfigError: k below 1 or temperature not above 0.
        ValueError: no example on one side, or a label out of range.
    """
    for labels in (train_y, test_y):
        if len(labels) and (labels.min() < 0 or labels.max() >= num_classes):
            raise ValueError(f"labels from {labels.min()} to {labels.max()} for {num_classes} classes")
    if not (np.isfinite(train_x).all() and np.isfinite(test_x).all()):
        _check_settings(k, temperature)
        return float("nan")
    return float(np.mean(knn_predictions(train_x, train_y, test_x, k, temperature, num_classes) == test_y))


def knn_predictions(
    train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, k: int, temperature: float, num_classes: int
) -> np.ndarray:
    """The label that wins the weighted vote of each query's neighbors, int64 [m].

    Args:
        train_x, test_x: finite features of the memory bank [n, ...] and of the queries [m, ...], any real dtype;
            further axes are flattened, so images work as they are. A zero vector is equally far from everything.
        train_y: int labels [n] in 0..num_classes-1.
        k: neighbors; at most n are used.
        temperature: of the weights; small values listen to the nearest neighbors only.
        num_classes: how many labels there are.

    Returns:
        Labels. Ties go to the earlier example and to the smaller label.

    Raises:
        ConfigError: k below 1 or temperature not above 0.
        ValueError: no example on one side.
    """
    _check_settings(k, temperature)
    if not len(train_x) or not len(test_x):
        raise ValueError(f"{len(train_x)} examples in the bank and {len(test_x)} queries: at least one each is needed")
    similarity, neighbors = _nearest(_unit_rows(train_x), _unit_rows(test_x), min(k, len(train_x)))
    # Relative to the nearest neighbor, which changes no vote and cannot overflow at a low temperature.
    weight = np.exp((similarity - similarity[:, :1]) / temperature)
    votes = np.zeros((len(similarity), num_classes), np.float32)
    np.add.at(votes, (np.arange(len(votes))[:, None], train_y[neighbors]), weight)
    return votes.argmax(axis=1)


def _nearest(bank: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(similarity, row in the bank) [m, k] of the nearest, nearest first; of equals, the earlier rows first."""
    size = min(_QUERY_BLOCK, len(queries))
    blocks = jnp.asarray(_padded(queries, -(-len(queries) // size) * size).reshape(-1, size, queries.shape[1]))
    shape = (*blocks.shape[:2], k)
    best = (jnp.full(shape, -jnp.inf, jnp.float32), jnp.zeros(shape, jnp.int32))
    size = min(_BANK_BLOCK, len(bank))
    for start in range(0, len(bank), size):
        block = bank[start : start + size]
        best = _merged(best, blocks, jnp.asarray(_padded(block, size)), jnp.int32(start), jnp.int32(len(block)))
    similarity, rows = (np.asarray(array).reshape(-1, k)[: len(queries)] for array in best)
    return similarity, rows


@jax.jit
def _merged(
    best: tuple[jax.Array, jax.Array], queries: jax.Array, bank: jax.Array, start: jax.Array, count: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The nearest so far, updated by a block of the bank of which the first `count` rows are no padding.

    `lax.top_k` puts the first of equal values first, and what was found in earlier blocks stands before the new block.
    """
    column = jnp.arange(len(bank))

    def of_one_block(operands: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        similarity, rows, x = operands
        found = jnp.matmul(x, bank.T, precision=jax.lax.Precision.HIGHEST)
        found = jnp.where((column < count)[None], found, -jnp.inf)
        rows = jnp.concatenate([rows, jnp.broadcast_to(start + column[None], found.shape)], axis=1)
        similarity, chosen = jax.lax.top_k(jnp.concatenate([similarity, found], axis=1), similarity.shape[1])
        return similarity, jnp.take_along_axis(rows, chosen, axis=1)

    return jax.lax.map(of_one_block, (*best, queries))


def _padded(rows: np.ndarray, count: int) -> np.ndarray:
    return np.pad(rows, ((0, count - len(rows)), (0, 0)))


def _unit_rows(x: np.ndarray) -> np.ndarray:
    rows = np.asarray(x, np.float32).reshape(len(x), -1)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norm > 0, norm, 1)


def _check_settings(k: int, temperature: float) -> None:
    if k < 1:
        raise ConfigError(f"eval.knn.k is {k}; at least 1 neighbor is needed")
    if not temperature > 0:
        raise ConfigError(f"eval.knn.temperature is {temperature}; it must be above 0")
