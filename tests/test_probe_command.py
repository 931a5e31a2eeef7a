"""`localmim probe` on a run of ours and on a file of its weights."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from localmim_jax.api import load
from localmim_jax.cli import probe as command
from localmim_jax.cli.convert import convert
from localmim_jax.errors import ConfigError
from localmim_jax.tasks import inputs
from tests.test_finetune import pretrained, recipe  # noqa: F401

SPLITS = {"train_split": "train[:90]", "test_split": "test[:60]"}


@pytest.fixture(scope="module")
def result(pretrained):  # noqa: F811
    return command.probe(str(pretrained[0]), data="digits", batch_size=32, resize=0, **SPLITS)


def features(run):
    """(features, labels) of both splits through the Python API."""
    found = []
    for split in SPLITS.values():
        source = inputs.open_split(inputs.data_config(recipe()), "digits", split)
        parts = list(load(run).encode_source(source, batch_size=32, resize=0))
        found += [
            np.concatenate([part["features"] for part, _ in parts]),
            np.array([source[i]["label"] for i in range(len(source))]),
        ]
    return found


def test_ninety_images_score_as_scikit_learn_does(result, pretrained):  # noqa: F811
    train_x, train_y, test_x, test_y = features(str(pretrained[0]))
    mean, deviation = train_x.mean(0), train_x.std(0)
    reference = LogisticRegression(C=result["C"], tol=1e-8, max_iter=5000).fit((train_x - mean) / deviation, train_y)
    accuracy = reference.score((test_x - mean) / deviation, test_y)
    assert result["accuracy"] == pytest.approx(accuracy, abs=1.1 / 60)  # one image
    assert (result["train_examples"], result["test_examples"]) == (90, 60)
    assert 0.2 < accuracy < 1
    assert sum(count for _, count in result["classes"].values()) == 60
    of_class = [value * count for value, count in result["classes"].values() if count]
    assert sum(of_class) / 60 == pytest.approx(result["accuracy"])


def test_a_file_of_weights_scores_the_same(result, pretrained, tmp_path):  # noqa: F811
    convert(str(pretrained[0]), str(tmp_path / "weights.npz"))
    config = load(str(pretrained[0])).config
    again = command.probe(str(tmp_path / "weights.npz"), config, data="digits", batch_size=32, resize=0, **SPLITS)
    assert again["accuracy"] == pytest.approx(result["accuracy"], abs=1.1 / 60)


def test_the_report(result):
    text = command.report(result)
    assert f"accuracy {result['accuracy']:.6g}  train_accuracy" in text.splitlines()[-1]
    assert text.count("<- chosen") == 1
    many = {**result, "classes": {str(i): (i / 1000, 5) for i in range(1000)}}
    assert "the 20 worst of 1000 classes" in command.report(many)


def test_no_batch_is_refused(pretrained):  # noqa: F811
    with pytest.raises(ConfigError, match="--batch_size=0: at least 1"):
        command.probe(str(pretrained[0]), data="digits", batch_size=0)
