"""How evenly features spread over the unit sphere, without labels.

Uniformity of Wang and Isola ("Understanding contrastive representation learning through alignment and uniformity on the
hypersphere", ICML 2020): the logarithm of the mean of exp(-2 |x - y|^2) over pairs of normalized features. It is 0
where all features are one point, and about -4 where they are spread evenly; lower is more even.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

MAX_IMAGES = 4096  # the pairs of so many are counted; their number grows with the square
_TEMPERATURE = 2.0
_BLOCK = 512


class Uniformity:
    """Metric (see `engine.task`): uniformity of the first `MAX_IMAGES` of "feature" [b, d]."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []
        self._count = 0

    def update(self, outputs: Mapping[str, Any], batch: Mapping[str, np.ndarray]) -> None:
        feature = np.asarray(outputs["feature"], np.float64)[: MAX_IMAGES - self._count]
        self._parts.append(feature)
        self._count += len(feature)

    def compute(self) -> dict[str, float]:
        """{"uniformity"}, NaN where a feature is not finite or there are fewer than two."""
        return {"uniformity": uniformity(np.concatenate(self._parts)) if self._parts else float("nan")}


def uniformity(features: np.ndarray) -> float:
    """Uniformity of features [n, d], at most 0. A zero vector counts as a point in the center of the sphere.

    NaN where one is not finite, or n < 2.
    """
    n = len(features)
    if n < 2 or not np.isfinite(features).all():
        return float("nan")
    norm = np.linalg.norm(features, axis=1, keepdims=True)
    x = features / np.where(norm > 0, norm, 1)
    squares = np.square(x).sum(axis=1)
    total = 0.0
    for start in range(0, n, _BLOCK):
        rows = slice(start, start + _BLOCK)
        distance = squares[rows, None] + squares[None] - 2 * x[rows] @ x.T
        total += np.exp(-_TEMPERATURE * np.maximum(distance, 0.0)).sum()
    # Each feature's pair with itself, whose distance is 0 up to rounding, is left out.
    return float(np.log((total - n) / (n * (n - 1))))
