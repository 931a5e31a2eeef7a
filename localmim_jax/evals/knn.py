"""Weighted k-nearest-neighbor classification of frozen features: how good they are, without training anything.

A query's neighbors are the k most similar examples of the memory bank by cosine; each votes for its label with weight
exp(similarity / temperature). Exact, in float32, in blocks, so that ImageNet's bank fits beside its features.
"""

from collections.abc import Mapping
from typing import Any

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
    """Share of queries, in 0..1, whose label wins the weighted vote.

    Args:
        train_x, test_x: features of the memory bank [n, ...] and of the queries [m, ...], any real dtype; further axes
            are flattened, so images work as they are. A zero vector is equally far from everything.
        train_y, test_y: int labels [n] and [m] in 0..num_classes-1.
        k: neighbors; at most n are used.
        temperature: of the weights; small values listen to the nearest neighbors only.
        num_classes: how many labels there are.

    Returns:
        The accuracy; NaN if a feature is not finite. Ties go to the earlier example and to the smaller label.

    Raises:
        ConfigError: k below 1 or temperature not above 0.
        ValueError: no example on one side, or a label out of range.
    """
    _check_settings(k, temperature)
    if not len(train_x) or not len(test_x):
        raise ValueError(f"{len(train_x)} examples in the bank and {len(test_x)} queries: at least one each is needed")
    for labels in (train_y, test_y):
        if labels.min() < 0 or labels.max() >= num_classes:
            raise ValueError(f"labels from {labels.min()} to {labels.max()} for {num_classes} classes")
    bank, queries = _unit_rows(train_x), _unit_rows(test_x)
    if not (np.isfinite(bank).all() and np.isfinite(queries).all()):
        return float("nan")
    correct = 0
    for start in range(0, len(queries), _QUERY_BLOCK):
        block = slice(start, start + _QUERY_BLOCK)
        similarity, neighbors = _nearest(bank, queries[block], min(k, len(bank)))
        # Relative to the nearest neighbor, which changes no vote and cannot overflow at a low temperature.
        weight = np.exp((similarity - similarity[:, :1]) / temperature)
        votes = np.zeros((len(similarity), num_classes), np.float32)
        np.add.at(votes, (np.arange(len(votes))[:, None], train_y[neighbors]), weight)
        correct += int((votes.argmax(axis=1) == test_y[block]).sum())
    return correct / len(queries)


def _nearest(bank: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(similarity, row in the bank) [m, k] of the nearest, nearest first; of equals, the earlier rows first."""
    similarity = np.empty((len(queries), 0), np.float32)
    rows = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(bank), _BANK_BLOCK):
        block = queries @ bank[start : start + _BANK_BLOCK].T
        columns = _largest(block, min(k, block.shape[1]))
        similarity = np.concatenate([similarity, np.take_along_axis(block, columns, 1)], axis=1)
        rows = np.concatenate([rows, start + columns], axis=1)
        best = _largest(similarity, min(k, similarity.shape[1]))
        similarity, rows = np.take_along_axis(similarity, best, 1), np.take_along_axis(rows, best, 1)
    order = np.argsort(-similarity, axis=1, kind="stable")
    return np.take_along_axis(similarity, order, 1), np.take_along_axis(rows, order, 1)


def _largest(values: np.ndarray, k: int) -> np.ndarray:
    """Columns [m, k] of the k largest of each row, in increasing order; of equals, the first columns."""
    threshold = np.partition(values, -k, axis=1)[:, -k, None]
    keep = values >= threshold
    if np.count_nonzero(keep) > k * len(values):  # some values equal the k-th: the first ones fill the room left
        equal = values == threshold
        room = k - np.count_nonzero(values > threshold, axis=1, keepdims=True)
        keep = (values > threshold) | (equal & (np.cumsum(equal, axis=1) <= room))
    return np.nonzero(keep)[1].reshape(len(values), k)


def _unit_rows(x: np.ndarray) -> np.ndarray:
    rows = np.asarray(x, np.float32).reshape(len(x), -1)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norm > 0, norm, 1)


def _check_settings(k: int, temperature: float) -> None:
    if k < 1:
        raise ConfigError(f"eval.knn.k is {k}; at least 1 neighbor is needed")
    if not temperature > 0:
        raise ConfigError(f"eval.knn.temperature is {temperature}; it must be above 0")
