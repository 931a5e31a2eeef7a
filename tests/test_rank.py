"""Effective ranks of matrices whose ranks are known."""

import numpy as np
import pytest

from localmim_jax.errors import DataError
from localmim_jax.evals.rank import FeatureRank, effective_rank, rankme


def features(values, n=60, seed=0):
    """[n, d] with these singular values."""
    rng = np.random.default_rng(seed)
    left = np.linalg.qr(rng.normal(size=(n, len(values))))[0]
    right = np.linalg.qr(rng.normal(size=(len(values), len(values))))[0]
    return (left * values) @ right


def measured(x, sizes=(7, 50)):
    metric = FeatureRank()
    for part in np.split(x, sizes):
        metric.update({"feature": part.astype(np.float32)}, {})
    return metric.compute()


def test_known_spectra():
    assert effective_rank(np.ones(12)) == pytest.approx(12)
    assert effective_rank(np.array([5.0, 0, 0])) == 1.0
    assert effective_rank(np.zeros(3)) == 0.0
    assert effective_rank(np.array([2.0, 1.0, 1.0])) == pytest.approx(2 * np.sqrt(2))  # entropy of 1/2, 1/4, 1/4
    assert effective_rank(1000 * np.array([2.0, 1.0, 1.0])) == pytest.approx(2 * np.sqrt(2))


def test_rankme_equals_its_definition_with_singular_values():
    x = features(np.geomspace(1, 1e-3, 16))
    singular = np.linalg.svd(x, compute_uv=False)
    p = singular / singular.sum() + 1e-7
    expected = np.exp(-(p * np.log(p)).sum())
    assert rankme(x.T @ x) == pytest.approx(expected, rel=1e-6)
    found = measured(x)
    assert found["rankme"] == pytest.approx(expected, rel=1e-4)
    assert (found["images"], found["width"]) == (60, 16)


def test_a_collapsed_encoder_has_rank_one():
    collapsed = np.outer(np.random.default_rng(0).normal(size=60), np.ones(8))
    found = measured(collapsed)
    assert found["rankme"] == pytest.approx(1, abs=1e-3)
    assert found["effective_rank"] == pytest.approx(1, abs=1e-3)


def test_the_covariance_leaves_out_the_mean():
    """Equal variance in 8 dimensions, far from the origin: RankMe is near 1, and the covariance's rank 8."""
    x = features(np.ones(8), n=200)
    x = (x - x.mean(axis=0)) + 50.0
    found = measured(x, sizes=(20, 170))
    assert found["rankme"] < 1.1
    singular = np.linalg.svd(np.cov(x.astype(np.float32).astype(np.float64).T), compute_uv=False)
    assert found["effective_rank"] == pytest.approx(effective_rank(singular), rel=1e-3)
    assert found["effective_rank"] > 7.9


def test_neither_batches_nor_their_order_matter():
    x = features(np.geomspace(1, 1e-2, 8))
    first = measured(x)
    for other in (measured(x, ()), measured(x[::-1], (1, 2, 3))):
        assert other == pytest.approx(first, rel=1e-6)


def test_not_finite_and_nothing():
    x = features(np.ones(4))
    x[3, 1] = np.nan
    found = measured(x)
    assert np.isnan(found["rankme"])
    assert np.isnan(found["effective_rank"])
    with pytest.raises(DataError, match=r"eval\.rank was given no image"):
        FeatureRank().compute()
