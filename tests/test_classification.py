import jax
import jax.numpy as jnp
import numpy as np
import pytest

from localmim_jax.evals.classification import Accuracy, ranks_and_losses


def plain_loop(logits, labels, k):
    """Top-k accuracy the slow way: sort each row, best first, the lower class first among equals."""
    hits = 0
    for row, label in zip(logits, labels, strict=True):
        best = sorted(range(len(row)), key=lambda c: (-row[c], c))[:k]
        hits += label in best
    return hits / len(labels)


@pytest.mark.parametrize("classes", [3, 12])
def test_accuracy_equals_a_plain_loop_ties_included(classes):
    rng = np.random.default_rng(0)
    logits = rng.integers(0, 6, size=(101, classes)).astype(np.float32)  # many ties
    labels = rng.integers(0, classes, size=101).astype(np.int32)
    metric, measure = Accuracy(classes), jax.jit(ranks_and_losses)
    for start in range(0, 101, 20):
        part = slice(start, start + 20)
        outputs = jax.tree.map(np.asarray, measure(jnp.asarray(logits[part]), jnp.asarray(labels[part])))
        metric.update(outputs, {"label": labels[part]})
    found = metric.compute()
    assert found["top1"] == plain_loop(logits, labels, 1)
    assert ("top5" in found) == (classes > 5)
    if classes > 5:
        assert found["top5"] == plain_loop(logits, labels, 5)
    wide = logits.astype(np.float64)
    expected = np.log(np.exp(wide).sum(axis=1)) - wide[np.arange(101), labels]
    assert found["loss"] == pytest.approx(expected.mean(), rel=1e-6)
    assert found["examples"] == 101


def test_constant_and_broken_scores_are_not_counted_as_right():
    logits = jnp.asarray([[0.0, 0.0, 0.0], [jnp.nan, 1.0, 0.0], [jnp.nan, 1.0, 0.0], [jnp.nan] * 3])
    labels = jnp.asarray([2, 0, 1, 0], jnp.int32)
    np.testing.assert_array_equal(ranks_and_losses(logits, labels)["rank"], [2, 3, 1, 3])
