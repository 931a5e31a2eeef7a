"""Statistics of a few repetitions: spread, paired differences with bootstrap intervals, rank correlation."""

import dataclasses
from collections.abc import Sequence

import numpy as np

LEVEL = 0.95
_RESAMPLES = 10_000


@dataclasses.dataclass(frozen=True)
class Interval:
    """An estimate and its interval.

    Attributes:
        mean: of the values.
        low, high: ends of the interval; both NaN with fewer than two values.
        count: of the values.
    """

    mean: float
    low: float
    high: float
    count: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval is known and all of it lies on one side of zero."""
        return self.low > 0 or self.high < 0


def spread(values: Sequence[float]) -> tuple[float, float]:
    """(mean, sample standard deviation); the deviation of one value is NaN.

    Raises:
        ValueError: there is no value.
    """
    if not len(values):
        raise ValueError("no value")
    x = np.asarray(values, np.float64)
    return float(x.mean()), float(x.std(ddof=1)) if len(x) > 1 else float("nan")


def bootstrap_mean(values: Sequence[float], seed: int = 0) -> Interval:
    """The mean with its percentile bootstrap interval (Efron, "Bootstrap methods", 1979) of level `LEVEL`.

    With n values there are few distinct samples, so intervals of three or five values are too narrow: they say what
    these repetitions look like rather than what any others would.

    Raises:
        ValueError: there is no value.
    """
    mean, _ = spread(values)
    x = np.asarray(values, np.float64)
    if len(x) < 2:
        return Interval(mean, float("nan"), float("nan"), len(x))
    picked = np.random.default_rng(seed).integers(0, len(x), (_RESAMPLES, len(x)))
    low, high = np.quantile(x[picked].mean(axis=1), ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Interval(mean, float(low), float(high), len(x))


def paired_difference(first: dict[int, float], second: dict[int, float], seed: int = 0) -> Interval | None:
    """`first` minus `second` over the seeds that both have, see `bootstrap_mean`; None where they share no seed."""
    shared = sorted(first.keys() & second.keys())
    return bootstrap_mean([first[key] - second[key] for key in shared], seed) if shared else None


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's rank correlation of paired values, -1..1; equal values share the mean of their ranks.

    NaN with fewer than three pairs, and where all values of one side are equal.

    Raises:
        ValueError: the sides differ in length.
    """
    if len(x) != len(y):
        raise ValueError(f"{len(x)} and {len(y)} values are no pairs")
    a, b = (_ranks(np.asarray(values, np.float64)) for values in (x, y))
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]
