"""How many dimensions the features of an encoder use, without labels: a collapse during pre-training shows here first.

Both numbers are the effective rank of Roy and Vetterli ("The effective rank: a measure of effective dimensionality",
EUSIPCO 2007), exp(H(p)) with p = s / sum(s) for the singular values s of a matrix, and lie between 1 and
min(images, width). They differ in the matrix:

- RankMe (Garrido et al., "RankMe: assessing the downstream performance of pretrained self-supervised representations by
  their rank", ICML 2023) takes the features as they are, one row an image. Its authors find that it follows
  linear-probe accuracy among runs of one method; they measure it on 25,600 images.
- `effective_rank` takes the covariance matrix of the features, so that their mean does not count and strong directions
  count more.

Beside them stands the uniformity of the features, see `evals.uniformity`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from localmim_jax.errors import DataError
from localmim_jax.evals.uniformity import Uniformity

_ROUNDING = 1e-13  # of the mean squared norm; a variance below it is float64's rounding
RANKME_EPSILON = 1e-7  # RankMe's, added to each fraction


class FeatureRank:
    """Metric (see `engine.task`): RankMe and the effective rank of the covariance of "feature" [b, d].

    It keeps two sums in float64 rather than the features, [d] and [d, d], so any number of images fits. The order of
    the batches changes results by rounding alone. Uniformity is of the first few thousand images.
    """

    def __init__(self) -> None:
        self._count = 0
        self._sum: np.ndarray | float = 0.0
        self._gram: np.ndarray | float = 0.0
        self._uniformity = Uniformity()

    def update(self, outputs: Mapping[str, Any], batch: Mapping[str, np.ndarray]) -> None:
        feature = np.asarray(outputs["feature"], np.float64)
        self._count += len(feature)
        self._sum = self._sum + feature.sum(axis=0)
        self._gram = self._gram + feature.T @ feature
        self._uniformity.update(outputs, batch)

    def compute(self) -> dict[str, float]:
        """{"rankme", "effective_rank", "uniformity", "images", "width"}; the first three are NaN where a feature is
        not finite.

        Raises:
            DataError: no image was given.
        """
        if not self._count:
            raise DataError("eval.rank was given no image; check data.name and data.split")
        gram, total = np.asarray(self._gram), np.asarray(self._sum)
        covariance = gram / self._count - np.outer(total, total) / self._count**2
        values = _eigenvalues(covariance)
        values = np.where(values < _ROUNDING * np.trace(gram) / self._count, 0.0, values)
        return {
            "rankme": rankme(gram),
            "effective_rank": effective_rank(values),
            **self._uniformity.compute(),
            "images": float(self._count),
            "width": float(len(total)),
        }


def rankme(gram: np.ndarray) -> float:
    """RankMe of features [n, d] from their Gram matrix `features.T @ features`, float64 [d, d]; NaN if not finite."""
    singular = np.sqrt(_eigenvalues(gram))
    return effective_rank(singular, RANKME_EPSILON)


def effective_rank(singular_values: np.ndarray, epsilon: float = 0.0) -> float:
    """exp of the entropy of singular values [d] divided by their sum: 1 if one is not zero, d if all are equal.

    `epsilon` is added to each fraction. 0.0 if all values are zero; NaN if one is NaN.
    """
    total = singular_values.sum()
    if total == 0:
        return 0.0
    fraction = singular_values / total + epsilon
    fraction = fraction[fraction != 0]  # 0 log 0 is 0
    return float(np.exp(-(fraction * np.log(fraction)).sum()))


def _eigenvalues(symmetric: np.ndarray) -> np.ndarray:
    """Those of a positive semidefinite matrix, rounding below zero removed; all NaN if an entry is not finite."""
    if not np.isfinite(symmetric).all():
        return np.full(len(symmetric), np.nan)
    return np.maximum(np.linalg.eigvalsh(symmetric), 0.0)
