"""Uniformity of arrangements whose pairs are known."""

import math

import numpy as np
import pytest

from localmim_jax.evals.uniformity import MAX_IMAGES, Uniformity, uniformity


def test_known_arrangements():
    one_point = np.ones((700, 3))  # more than one block
    assert uniformity(one_point) == pytest.approx(0.0, abs=1e-9)
    opposite = np.array([[3.0, 0.0], [-0.1, 0.0]])  # |x - y|^2 is 4 whatever the lengths
    assert uniformity(opposite) == pytest.approx(-8.0)
    corners = np.array([[1.0, 0], [0, 1.0], [-1.0, 0], [0, -1.0]])  # of each point's three pairs, two are at sqrt(2)
    assert uniformity(corners) == pytest.approx(math.log((2 * math.exp(-4) + math.exp(-8)) / 3))


def test_an_even_spread_in_many_dimensions_is_near_minus_four():
    x = np.random.default_rng(0).normal(size=(1500, 64))
    assert uniformity(x) == pytest.approx(-3.95, abs=0.1)
    assert uniformity(x + 3.0) > -1.0  # a common mean gathers the features


def test_batches_give_what_the_whole_gives_and_only_the_first_images_count():
    x = np.random.default_rng(0).normal(size=(MAX_IMAGES + 300, 4))
    metric = Uniformity()
    for part in np.split(x, [50, 4000, MAX_IMAGES + 100]):
        metric.update({"feature": part}, {})
    assert metric.compute()["uniformity"] == uniformity(x[:MAX_IMAGES])


def test_what_is_not_finite_or_too_few_has_none():
    assert math.isnan(uniformity(np.array([[1.0, 0.0], [np.nan, 0.0]])))
    assert math.isnan(uniformity(np.ones((1, 2))))
    assert math.isnan(Uniformity().compute()["uniformity"])
