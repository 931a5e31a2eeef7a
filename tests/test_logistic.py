"""The probe's classifier against scikit-learn's, which minimizes the same objective."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from localmim_jax.errors import DataError
from localmim_jax.tasks.logistic import HELD_OUT, fit_probe, held_out_part

IMAGES, LABELS = load_digits(return_X_y=True)


def objective(kernel, bias, x, y, strength):
    logits = x @ kernel + bias
    losses = np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1) - logits[np.arange(len(y)), y]
    return strength * losses.sum() + 0.5 * (kernel**2).sum()


@pytest.fixture(scope="module")
def probe():
    return fit_probe(IMAGES[:500], LABELS[:500], 10, (1e-3, 1e-1, 1e4))


def test_equals_scikit_learns_minimum(probe):
    x = (IMAGES[:500] - probe.mean) / probe.deviation
    reference = LogisticRegression(C=probe.strength, tol=1e-8, max_iter=5000).fit(x, LABELS[:500])
    found = objective(probe.kernel.astype(float), probe.bias, x, LABELS[:500], probe.strength)
    least = objective(reference.coef_.T, reference.intercept_, x, LABELS[:500], probe.strength)
    assert found == pytest.approx(least, rel=1e-4)
    np.testing.assert_allclose(probe.kernel, reference.coef_.T, atol=5e-3)
    test = (IMAGES[500:] - probe.mean) / probe.deviation
    agreement = (probe.predict(IMAGES[500:]) == reference.predict(test)).mean()
    assert agreement > 0.998
    assert (probe.predict(IMAGES[500:]) == LABELS[500:]).mean() > 0.88


def test_the_strength_is_the_best_of_the_held_out_part(probe):
    held_out = held_out_part(LABELS[:500])
    x = (IMAGES[:500] - probe.mean) / probe.deviation
    for strength, accuracy, loss in probe.sweep:
        reference = LogisticRegression(C=strength, tol=1e-7, max_iter=5000).fit(x[~held_out], LABELS[:500][~held_out])
        right = reference.score(x[held_out], LABELS[:500][held_out])
        assert accuracy == pytest.approx(right, abs=0.021)  # two of 96 images
        assert np.isfinite(loss)
    assert [row[0] for row in probe.sweep] == [1e-3, 1e-1, 1e4]
    assert probe.strength == max(probe.sweep, key=lambda row: (row[1], -row[2]))[0] == 1e-1


def test_the_held_out_part_has_a_fifth_of_every_class():
    held_out = held_out_part(LABELS[:500])
    for label in range(10):
        count = (LABELS[:500] == label).sum()
        assert held_out[LABELS[:500] == label].sum() == count // HELD_OUT
    assert held_out_part(np.array([0, 1, 1, 2, 2, 2])).tolist() == [False, False, True, False, True, False]


def test_neither_scale_nor_a_constant_feature_matters(probe):
    x = np.concatenate([7 + 1000 * IMAGES[:500], np.full((500, 1), 3.0)], axis=1)
    other = fit_probe(x, LABELS[:500], 10, (probe.strength,))
    test = np.concatenate([7 + 1000 * IMAGES[500:], np.full((len(IMAGES) - 500, 1), 3.0)], axis=1)
    assert (other.predict(test) == probe.predict(IMAGES[500:])).mean() > 0.998
    assert np.abs(other.kernel[-1]).max() < 1e-6


def test_what_cannot_be_fitted():
    with pytest.raises(DataError, match="at least two classes"):
        fit_probe(IMAGES[:5], np.zeros(5, int), 10)
    with pytest.raises(DataError, match="the features of 1 training images are not finite"):
        fit_probe(np.where(np.arange(5)[:, None] == 2, np.nan, IMAGES[:5]), np.arange(5), 10)
