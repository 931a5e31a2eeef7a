"""Statistics against values that are known, and against scipy's."""

import math

import numpy as np
import pytest
from scipy import stats

from localmim_jax.analysis.statistics import bootstrap_mean, paired_difference, rank_correlation, spread


def test_spread():
    assert spread([1.0, 2.0, 3.0]) == (2.0, 1.0)
    mean, deviation = spread([4.0])
    assert mean == 4.0
    assert math.isnan(deviation)
    with pytest.raises(ValueError, match="no value"):
        spread([])


def test_the_interval_of_equal_values_is_a_point_and_of_one_value_is_unknown():
    found = bootstrap_mean([2.0, 2.0, 2.0])
    assert (found.mean, found.low, found.high, found.count) == (2.0, 2.0, 2.0, 3)
    assert found.excludes_zero
    alone = bootstrap_mean([2.0])
    assert math.isnan(alone.low)
    assert not alone.excludes_zero


def test_two_values_have_three_means_of_which_the_outer_ones_are_the_interval():
    found = bootstrap_mean([-1.0, 3.0])  # means -1, 1, 3 with probabilities 1/4, 1/2, 1/4
    assert (found.mean, found.low, found.high) == (1.0, -1.0, 3.0)
    assert not found.excludes_zero


def test_many_values_have_the_normal_interval():
    x = np.random.default_rng(0).normal(5.0, 2.0, 400)
    found, half = bootstrap_mean(x), 1.96 * x.std(ddof=1) / 20
    assert found.low == pytest.approx(x.mean() - half, abs=0.02)
    assert found.high == pytest.approx(x.mean() + half, abs=0.02)
    assert bootstrap_mean(x) == found


def test_differences_are_of_the_seeds_that_both_have():
    found = paired_difference({0: 1.0, 1: 2.0, 2: 9.0}, {1: 1.5, 0: 0.5, 5: 0.0})
    assert (found.mean, found.low, found.high, found.count) == (0.5, 0.5, 0.5, 2)
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


def test_rank_correlation_is_scipys_with_ties_too():
    rng = np.random.default_rng(1)
    x = rng.integers(0, 6, 30).astype(float)
    y = x + rng.integers(0, 5, 30)
    assert rank_correlation(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    assert rank_correlation([1, 2, 3], [10, 200, 3000]) == pytest.approx(1.0)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)
    assert math.isnan(rank_correlation([1, 2, 3], [5, 5, 5]))
    assert math.isnan(rank_correlation([1, 2], [1, 2]))
    with pytest.raises(ValueError, match="2 and 1 values"):
        rank_correlation([1, 2], [1])
