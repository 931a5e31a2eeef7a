"""k-NN against a plain double loop, against scikit-learn, and against anything that could bend the number."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from localmim_jax.errors import ConfigError, DataError
from localmim_jax.evals import knn
from localmim_jax.evals.knn import KNN, knn_accuracy, knn_predictions
from tests import knn_reference


def data(n: int, m: int, d: int, classes: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(classes, d))
    train_y, test_y = rng.integers(0, classes, n), rng.integers(0, classes, m)
    train_x = centers[train_y] + 1.5 * rng.normal(size=(n, d))
    test_x = centers[test_y] + 1.5 * rng.normal(size=(m, d))
    return train_x.astype(np.float32), train_y, test_x.astype(np.float32), test_y


def plain_loop(train_x, train_y, test_x, test_y, k, temperature, num_classes) -> float:
    correct = 0
    for query, label in zip(test_x, test_y, strict=True):
        scores = [float(query @ x / np.linalg.norm(query) / np.linalg.norm(x)) for x in train_x.astype(np.float64)]
        votes = [0.0] * num_classes
        for row in sorted(range(len(scores)), key=lambda i: -scores[i])[:k]:
            votes[train_y[row]] += np.exp(scores[row] / temperature)
        correct += votes.index(max(votes)) == label
    return correct / len(test_x)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (20, 0.07), (20, 1.0), (7, 0.2), (300, 0.07)])
def test_equals_a_plain_loop(k, temperature, monkeypatch):
    monkeypatch.setattr(knn, "_QUERY_BLOCK", 13)
    monkeypatch.setattr(knn, "_BANK_BLOCK", 37)
    arrays = data(300, 101, 6, 5)
    expected = plain_loop(*arrays, k, temperature, 5)
    assert 0.3 < expected < 0.95
    assert knn_accuracy(*arrays, k, temperature, 5) == expected


@pytest.mark.parametrize(("bank_block", "query_block"), [(32768, 512), (97, 64)])
def test_the_device_predicts_what_the_host_does(bank_block, query_block, monkeypatch):
    """Digits, whose pixels are small whole numbers, so that many similarities are nearly equal."""
    monkeypatch.setattr(knn, "_QUERY_BLOCK", query_block)
    monkeypatch.setattr(knn, "_BANK_BLOCK", bank_block)
    images, labels = load_digits(return_X_y=True)
    arguments = images[:1400], labels[:1400], images[1400:], 20, 0.07, 10
    np.testing.assert_array_equal(knn_predictions(*arguments), knn_reference.predictions(*arguments))


def test_temperature_and_k_matter():
    arrays = data(300, 101, 6, 5)
    assert len({knn_accuracy(*arrays, k, t, 5) for k in (1, 50) for t in (0.05, 1.0)}) >= 3


def test_raw_pixels_equal_scikit_learn():
    images, labels = load_digits(return_X_y=True)
    train_x, test_x = images[:1400].reshape(-1, 8, 8, 1).astype(np.uint8), images[1400:].reshape(-1, 8, 8, 1)
    reference = KNeighborsClassifier(
        20, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.07)
    ).fit(images[:1400], labels[:1400])
    expected = reference.score(images[1400:], labels[1400:])
    assert knn_accuracy(train_x, labels[:1400], test_x, labels[1400:], 20, 0.07, 10) == pytest.approx(
        expected, abs=1e-9
    )


def test_scale_of_a_feature_does_not_matter_and_low_temperatures_do_not_overflow():
    train_x, train_y, test_x, test_y = data(200, 50, 6, 4)
    first = knn_accuracy(train_x, train_y, test_x, test_y, 20, 1e-3, 4)
    assert first == knn_accuracy(train_x * 1000, train_y, test_x / 1000, test_y, 20, 1e-3, 4)
    assert first == knn_accuracy(train_x, train_y, test_x, test_y, 1, 0.07, 4)


def test_equal_similarities_go_to_the_earlier_example(monkeypatch):
    monkeypatch.setattr(knn, "_BANK_BLOCK", 3)
    train_x = np.ones((8, 2), np.float32)
    train_y = np.array([1, 1, 2, 2, 2, 2, 2, 2])
    assert knn_accuracy(train_x, train_y, train_x[:1], np.array([1]), 3, 0.07, 3) == 1.0
    assert knn_accuracy(train_x, train_y, train_x[:1], np.array([2]), 5, 0.07, 3) == 1.0


def test_zero_and_non_finite_features():
    train_x, train_y, test_x, test_y = data(50, 10, 4, 3)
    train_x[0] = 0
    assert 0 <= knn_accuracy(train_x, train_y, test_x, test_y, 5, 0.07, 3) <= 1
    test_x[3, 1] = np.nan
    assert np.isnan(knn_accuracy(train_x, train_y, test_x, test_y, 5, 0.07, 3))


def batches(arrays, sizes, rng):
    """The two splits mixed and cut into batches, as [(outputs, batch), ...]. Ids repeat across the splits."""
    train_x, train_y, test_x, test_y = arrays
    x, y = np.concatenate([train_x, test_x]), np.concatenate([train_y, test_y]).astype(np.int32)
    example = np.concatenate([np.arange(len(train_x)), np.arange(len(test_x))])
    is_train = np.arange(len(x)) < len(train_x)
    order = rng.permutation(len(x))
    for rows in np.split(order, np.cumsum(sizes)):
        yield {"feature": x[rows]}, {"label": y[rows], "id": example[rows], "is_train": is_train[rows]}


def test_metric_ignores_order_and_batch_size():
    arrays = data(120, 45, 6, 4)
    expected = knn_accuracy(*arrays, 9, 0.1, 4)
    for seed, sizes in enumerate([[], [16] * 10, [1, 100, 3]]):
        metric = KNN(k=9, temperature=0.1)
        for outputs, batch in batches(arrays, sizes, np.random.default_rng(seed)):
            metric.update(outputs, batch)
        assert metric.compute() == {
            "accuracy": expected,
            "k": 9.0,
            "temperature": 0.1,
            "train_examples": 120.0,
            "test_examples": 45.0,
        }


def test_metric_keeps_no_reference_to_the_batch_and_reports_the_k_it_used():
    train_x, train_y, test_x, test_y = data(6, 5, 4, 3)
    metric = KNN(k=20, temperature=0.1)
    for outputs, batch in batches((train_x, train_y, test_x, test_y), [], np.random.default_rng(0)):
        metric.update(outputs, batch)
        batch["label"][:] = 0
        batch["is_train"][:] = True
    assert metric.compute()["k"] == 6.0
    assert metric.compute()["accuracy"] == knn_accuracy(train_x, train_y, test_x, test_y, 6, 0.1, 3)


def test_metric_scores_the_raw_pixels_too():
    train_x, train_y, test_x, test_y = data(120, 45, 12, 4)
    metric = KNN(k=9, temperature=0.1, raw_pixels=True)
    pixels = [(64 * x + 128).clip(0, 255).astype(np.uint8) for x in (train_x, test_x)]
    for start in range(0, 120, 40):
        block = slice(start, start + 40)
        for is_train, x, image, y in ((True, train_x, pixels[0], train_y), (False, test_x, pixels[1], test_y)):
            part = image[block].reshape(-1, 2, 2, 3)
            batch = {"label": y[block], "id": np.arange(len(y))[block], "is_train": np.full(len(part), is_train)}
            metric.update({"feature": x[block, :3]}, {**batch, "image": part})
    found = metric.compute()
    assert found["accuracy"] == knn_accuracy(train_x[:, :3], train_y, test_x[:, :3], test_y, 9, 0.1, 4)
    assert found["raw_pixel_accuracy"] == knn_accuracy(pixels[0], train_y, pixels[1], test_y, 9, 0.1, 4)
    assert found["raw_pixel_accuracy"] != found["accuracy"]


@pytest.mark.parametrize(("is_train", "message"), [(True, "eval.knn.test_split"), (False, "eval.knn.train_split")])
def test_metric_needs_both_splits(is_train, message):
    metric = KNN(k=3, temperature=0.1)
    with pytest.raises(DataError, match="no example"):
        metric.compute()
    batch = {"label": np.array([1]), "id": np.array([0]), "is_train": np.array([is_train])}
    metric.update({"feature": np.ones((1, 2))}, batch)
    with pytest.raises(DataError, match=message):
        metric.compute()


def test_metric_needs_labels():
    metric = KNN(k=3, temperature=0.1)
    batch = {"label": np.array([1, -1]), "id": np.array([4, 7]), "is_train": np.array([True, False])}
    metric.update({"feature": np.ones((2, 2))}, batch)
    with pytest.raises(DataError, match="example 7"):
        metric.compute()


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match=r"eval\.knn\.k is 0"):
        KNN(k=0, temperature=0.1)
    with pytest.raises(ConfigError, match=r"eval\.knn\.temperature is 0"):
        KNN(k=1, temperature=0.0)
    x, y = np.ones((2, 2)), np.array([0, 5])
    with pytest.raises(ValueError, match="labels from 0 to 5 for 3 classes"):
        knn_accuracy(x, y, x, y, 1, 0.1, 3)
    with pytest.raises(ValueError, match="at least one each"):
        knn_accuracy(x[:0], y[:0], x, y, 1, 0.1, 6)
