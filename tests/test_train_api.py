"""`localmim_jax.train`: datasets, transforms and loggers of Python."""

import json

import numpy as np
import pytest

import localmim_jax
from localmim_jax.api.training import hand_over
from localmim_jax.build import build_task
from localmim_jax.data.own import OwnTransform, name_of
from localmim_jax.errors import ConfigError, DataError, Preempted
from tests.own_data import Broken, Kept, Photographs, Stop, everything_wrong, photographs, rotated, small_config
from tests.training import first_devices


def train(workdir, loggers=(), **changes):
    given = {"dataset": {"train": Photographs(10), "validation": Photographs(6)}, "transform": rotated} | changes
    with first_devices(1):
        return localmim_jax.train(small_config(num_steps=4), workdir, loggers=loggers, **given)


@pytest.mark.slow
def test_stopped_and_resumed_it_is_the_same_run(tmp_path, caplog):
    kept = Kept()
    whole = train(tmp_path / "whole", (kept, Broken()))
    assert "knn/accuracy" in whole.evaluations  # of the validation split, by the training split
    assert whole.evaluations["knn/test_examples"] == 6
    assert [call[:2] for call in kept.calls] == [
        ("start", "whole"),
        *(("scalars", step) for step in (0, 1, 2, 3, 4, 4)),
        ("close", True),
    ]
    assert kept.values["data.name"] == "python:tests.own_data.Photographs:10"
    assert "logger Broken in" in caplog.text
    assert "the server is gone" in caplog.text

    stopped = Kept()
    with pytest.raises(Preempted, match="step 2 of 4 is saved"):
        train(tmp_path / "part", (Stop(1), stopped))
    assert stopped.calls[-1] == ("close", False)
    with pytest.raises(ConfigError, match=r"data\.name: \"python:tests\.own_data\.Photographs:10\" -> .*:9"):
        train(tmp_path / "part", dataset={"train": Photographs(9), "validation": Photographs(6)})
    with pytest.raises(ConfigError, match=r"data\.transform: \"tests\.own_data\.rotated\" -> null"):
        train(tmp_path / "part", transform=None)
    again = train(tmp_path / "part", (stopped,))
    assert [call[2] for call in stopped.calls if call[0] == "start"] == [0, 2]
    assert again.state_hash == whole.state_hash

    config = json.loads((tmp_path / "part" / "config.json").read_text())
    assert config["data"]["transform"] == "tests.own_data.rotated"
    config = localmim_jax.load(tmp_path / "part").config
    with pytest.raises(DataError, match="is an object of a Python program: train and resume with"):
        build_task(config, "")


def test_a_logger_that_is_misconfigured_ends_the_run_before_it_starts(tmp_path):
    class Misconfigured(localmim_jax.Logger):
        def start(self, workdir, first_step):
            raise ConfigError("no such project")

    with pytest.raises(ConfigError, match="no such project"):
        train(tmp_path / "run", (Misconfigured(),))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_what_cannot_be_used():
    def given(**changes):
        return hand_over(small_config().unlock(), changes.get("dataset"), changes.get("transform"))

    for changes, message in (
        ({"dataset": {"test": []}}, "dataset has the splits test; give"),
        ({"transform": "flip"}, "transform is a str; a function"),
    ):
        with pytest.raises(ConfigError, match=message):
            given(**changes)
    for changes, message in (
        ({"dataset": []}, r"dataset\[train\] is empty"),
        ({"dataset": 3}, "dataset is a int; an object with len"),
    ):
        with pytest.raises(DataError, match=message):
            given(**changes)
    with pytest.raises(ConfigError, match="no split 'validation', only train"):
        given(dataset=photographs(2)).split("validation")
    segment = localmim_jax.load_config("quickstart_segment")
    with pytest.raises(ConfigError, match="the task segment reads masks or objects"):
        build_task(segment, "", hand_over(segment.unlock(), photographs(2), None))


def test_a_transform_is_checked_and_gets_whole_images():
    transform = OwnTransform(everything_wrong, "wrong", (32, 32), 3)
    (image,) = photographs(1)
    with pytest.raises(DataError, match=r"transform wrong returned an image of shape \[\d+, \d+, 3\]; the run's are"):
        transform({"image": image}, np.random.default_rng(0))
    nothing = OwnTransform(lambda rng, example: None, "nothing", (32, 32), 3)
    with pytest.raises(DataError, match="transform nothing returned no"):
        nothing({"image": image}, np.random.default_rng(0))
    seen = []
    OwnTransform(lambda rng, example: seen.append(example) or {"image": image[:32, :32], "label": 3}, "x", (32, 32), 3)(
        {"image": image, "label": 1}, np.random.default_rng(0)
    )
    np.testing.assert_array_equal(seen[0]["image"], image)


def test_names():
    assert name_of(rotated) == "tests.own_data.rotated"
    assert name_of([1]) == "list"
    assert name_of(Photographs(1)) == "tests.own_data.Photographs"
