"""Weighted k-NN in numpy on the host, block by block: what `evals.knn` is compared with."""

import numpy as np

_QUERY_BLOCK = 512
_BANK_BLOCK = 32768


def predictions(
    train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, k: int, temperature: float, num_classes: int
) -> np.ndarray:
    """The label int64 [m] that wins each query's vote; ties go to the earlier example and to the smaller label."""
    bank, queries = _unit_rows(train_x), _unit_rows(test_x)
    found = []
    for start in range(0, len(queries), _QUERY_BLOCK):
        similarity, neighbors = _nearest(bank, queries[start : start + _QUERY_BLOCK], min(k, len(bank)))
        weight = np.exp((similarity - similarity[:, :1]) / temperature)
        votes = np.zeros((len(similarity), num_classes), np.float32)
        np.add.at(votes, (np.arange(len(votes))[:, None], train_y[neighbors]), weight)
        found.append(votes.argmax(axis=1))
    return np.concatenate(found)


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
