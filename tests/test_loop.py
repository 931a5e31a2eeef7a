import dataclasses
import json
import os
import signal

import jax
import numpy as np
import pytest

from localmim_jax.engine import loop
from localmim_jax.engine.checkpoints import manifest
from localmim_jax.engine.checkpoints.read import complete_steps
from localmim_jax.engine.in_flight import RUN_AHEAD
from localmim_jax.engine.mesh import make_mesh
from localmim_jax.engine.prefetch import AHEAD
from localmim_jax.engine.task import Evaluation
from localmim_jax.errors import ConfigError, DataError, Diverged, Interrupted, Preempted
from localmim_jax.params import flatten
from tests.defaults import checkpoint_settings, log_settings, mesh_settings
from tests.test_evaluate import Accuracy, predict, source
from tests.tiny import SETTINGS, TASK, NormalizedPerceptron, batches

CONFIG = {"task": "digits", "schedule": {"peak_lr": 0.01}}
QUIET = dataclasses.replace(SETTINGS, log=log_settings(every_steps=5), checkpoint=checkpoint_settings(every_steps=6))
SHORT = dataclasses.replace(TASK, make_model=NormalizedPerceptron, num_steps=12)


@pytest.fixture
def one_device(monkeypatch):
    """The loop as it runs where steps may overlap; on several fake devices each step is waited for."""
    monkeypatch.setattr(loop, "make_mesh", lambda settings: make_mesh(settings, jax.devices()[:1]))


def signalled(number, at_step):
    """The task's batches; when that of `at_step` is fetched, this process gets a signal."""

    def train_batches(first_step):
        for step, batch in enumerate(batches(first_step), start=first_step):
            if step == at_step:
                os.kill(os.getpid(), number)
            yield batch

    return train_batches


def poisoned(bad_steps):
    def train_batches(first_step):
        for step, batch in enumerate(batches(first_step), start=first_step):
            yield {**batch, "image": batch["image"] * np.float32(np.nan if step in bad_steps else 1)}

    return train_batches


def reports(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_checkpoints_metrics_and_records(tmp_path, one_device, capsys):
    task = dataclasses.replace(SHORT, num_steps=13)
    summary = loop.run(task, QUIET, tmp_path, CONFIG)
    assert int(summary.state["step"]) == 13
    assert capsys.readouterr().out == f"state_hash {summary.state_hash}\n"
    assert complete_steps(tmp_path / "checkpoints") == [12, 13]  # the last is saved off its turn
    assert [report["step"] for report in reports(tmp_path)] == [5, 10, 13]
    assert reports(tmp_path)[-1]["loss"] < reports(tmp_path)[0]["loss"]
    assert json.loads((tmp_path / "config.json").read_text()) == CONFIG
    for name in ("env.json", "parameters.txt"):
        assert (tmp_path / name).exists()
    assert not (tmp_path / "run.lock").exists()

    again = loop.run(task, QUIET, tmp_path, CONFIG)  # already done: nothing is trained
    assert again.state_hash == summary.state_hash
    assert [report["step"] for report in reports(tmp_path)] == [5, 10, 13]


@pytest.mark.parametrize(
    ("accum_steps", "number", "error"), [(1, signal.SIGTERM, Preempted), (2, signal.SIGINT, Interrupted)]
)
def test_stopped_and_resumed_equals_uninterrupted(tmp_path, accum_steps, number, error):
    settings = dataclasses.replace(QUIET, accum_steps=accum_steps, mesh=mesh_settings(fsdp=2))
    whole = loop.run(SHORT, settings, tmp_path / "whole", CONFIG)
    stopped = dataclasses.replace(SHORT, train_batches=signalled(number, at_step=8))
    with pytest.raises(error, match="of 12 is saved; the same command resumes from there"):
        loop.run(stopped, settings, tmp_path / "resumed", CONFIG)
    assert 6 <= complete_steps(tmp_path / "resumed" / "checkpoints")[-1] < 12
    resumed = loop.run(SHORT, settings, tmp_path / "resumed", CONFIG)
    assert resumed.state_hash == whole.state_hash
    for (path, left), right in zip(
        flatten(jax.device_get(whole.state)).items(), jax.tree.leaves(jax.device_get(resumed.state)), strict=True
    ):
        np.testing.assert_array_equal(left, right, err_msg=path)
    assert [report["step"] for report in reports(tmp_path / "resumed")][-2:] == [10, 12]


def test_evaluations_run_when_due_and_the_best_checkpoint_stays(tmp_path, one_device):
    scores = iter([0.1, 0.9, 0.3, 0.2])

    class Scripted(Accuracy):
        def compute(self):
            return {**super().compute(), "score": next(scores), "text": "fine"}

    scripted = Evaluation("test", source(61, 20), predict, Scripted, every_steps=4, at_start=True, best="score")
    settings = dataclasses.replace(QUIET, checkpoint=checkpoint_settings(keep_last=1))
    summary = loop.run(dataclasses.replace(TASK, num_steps=12, evaluations=(scripted,)), settings, tmp_path, CONFIG)
    found = {report["step"]: report["test/score"] for report in reports(tmp_path) if "test/score" in report}
    assert found == {0: 0.1, 4: 0.9, 8: 0.3, 12: 0.2}
    assert complete_steps(tmp_path / "checkpoints") == [4, 12]
    assert summary.evaluations["test/score"] == 0.2
    assert summary.evaluations["test/examples"] == 61
    accuracies = [report["test/accuracy"] for report in reports(tmp_path) if "test/accuracy" in report]
    assert accuracies[-1] > accuracies[0]


def test_a_signal_within_an_evaluation_ends_it_and_resuming_runs_it_again(tmp_path, one_device):
    def interrupted():
        for index, batch in enumerate(source(61, 20)()):
            if index == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    whole = Evaluation("test", source(61, 20), predict, Accuracy, every_steps=4)
    task = dataclasses.replace(TASK, num_steps=8, evaluations=(whole,))
    cut = dataclasses.replace(task, evaluations=(dataclasses.replace(whole, batches=interrupted),))
    with pytest.raises(Preempted, match="step 4 of 8 is saved"):
        loop.run(cut, QUIET, tmp_path, CONFIG)
    loop.run(task, QUIET, tmp_path, CONFIG)
    assert [report["step"] for report in reports(tmp_path) if "test/accuracy" in report] == [4, 8]


def test_an_evaluation_that_fails_costs_no_step_and_is_repeated_once(tmp_path, one_device, caplog):
    counted = []

    def damaged():
        counted.append(1)
        yield from list(source(61, 20)())[:1]
        raise DataError("photo.jpg is truncated")

    class Scored(Accuracy):
        def compute(self):
            return {**super().compute(), "score": 0.5}

    whole = Evaluation("test", source(61, 20), predict, Scored, every_steps=4, best="score")
    settings = dataclasses.replace(QUIET, checkpoint=checkpoint_settings(keep_last=1))
    task = dataclasses.replace(TASK, num_steps=8, evaluations=(whole,))
    failing = dataclasses.replace(task, evaluations=(dataclasses.replace(whole, batches=damaged),))
    for _ in range(2):  # the second start fails at the same place, and loses nothing either
        with pytest.raises(DataError, match="truncated"):
            loop.run(failing, settings, tmp_path, CONFIG)
        assert complete_steps(tmp_path / "checkpoints") == [4]
    assert counted == [1, 1]
    assert "evaluation test of step 4 failed; the step is saved, and the same command evaluates it again" in caplog.text
    assert manifest.verify(tmp_path / "checkpoints" / "4").score is None

    resumed = loop.run(task, settings, tmp_path, CONFIG)
    assert [report["step"] for report in reports(tmp_path) if "test/accuracy" in report] == [4, 8]
    assert complete_steps(tmp_path / "checkpoints") == [8]
    assert manifest.verify(tmp_path / "checkpoints" / "8").score == 0.5
    assert resumed.state_hash == loop.run(task, settings, tmp_path / "whole", CONFIG).state_hash


def test_one_bad_step_is_skipped_and_counted(tmp_path, one_device):
    task = dataclasses.replace(SHORT, train_batches=poisoned({7}))
    summary = loop.run(task, QUIET, tmp_path, CONFIG)
    assert [report["skipped_steps"] for report in reports(tmp_path)] == [0, 1, 1]
    assert all(np.isfinite(report["loss"]) for report in reports(tmp_path))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(summary.state)))


@pytest.mark.parametrize("devices", [1, 8])
def test_a_diverged_run_names_its_batch_and_keeps_the_last_good_checkpoint(tmp_path, monkeypatch, devices):
    monkeypatch.setattr(loop, "make_mesh", lambda settings: make_mesh(settings, jax.devices()[:devices]))
    settings = dataclasses.replace(
        QUIET,
        optimizer=dataclasses.replace(QUIET.optimizer, max_bad_steps=3),
        checkpoint=checkpoint_settings(every_steps=3, keep_last=1),
    )
    good = dataclasses.replace(SHORT, num_steps=40)
    bad = dataclasses.replace(good, train_batches=poisoned(range(6, 40)))
    with pytest.raises(Diverged, match="not finite in 3 steps in a row, the last being 9 with examples") as error:
        loop.run(bad, settings, tmp_path, CONFIG)
    assert complete_steps(tmp_path / "checkpoints") == [6]
    dump = json.loads((tmp_path / "diverged.json").read_text())
    assert [entry["step"] for entry in dump] == [7, 8, 9]
    ids = [next(batches(step))["id"].tolist() for step in (6, 7, 8)]
    assert [entry["ids"] for entry in dump] == ids
    assert str(ids[-1][0]) in str(error.value)
    assert loop.run(good, settings, tmp_path, CONFIG).state["bad_steps"]["total"] == 0


def test_divergence_is_found_without_a_log_or_a_save_and_the_host_stays_near_the_devices(tmp_path, one_device):
    fetched = []

    def train_batches(first_step):
        for batch in poisoned(range(100))(first_step):
            fetched.append(batch["id"])
            yield batch

    settings = dataclasses.replace(QUIET, log=log_settings(every_steps=100), checkpoint=checkpoint_settings())
    with pytest.raises(Diverged, match="the last being 10 with"):
        loop.run(dataclasses.replace(SHORT, num_steps=100, train_batches=train_batches), settings, tmp_path, CONFIG)
    assert len(fetched) <= 10 + RUN_AHEAD + AHEAD + 1
    assert complete_steps(tmp_path / "checkpoints") == []


def test_a_resumed_run_with_another_config_is_refused(tmp_path):
    loop.run(SHORT, QUIET, tmp_path, CONFIG)
    with pytest.raises(ConfigError, match=r"schedule.peak_lr: 0.01 -> 0.02"):
        loop.run(SHORT, QUIET, tmp_path, {**CONFIG, "schedule": {"peak_lr": 0.02}})


def test_data_that_ends_or_does_not_fit_is_an_error_and_the_lock_is_released(tmp_path):
    few = dataclasses.replace(
        SHORT, train_batches=lambda first: (b for b, _ in zip(batches(0), range(3), strict=False))
    )
    with pytest.raises(DataError, match="ended before step 3"):
        loop.run(few, QUIET, tmp_path, CONFIG)
    assert complete_steps(tmp_path / "checkpoints") == [3]  # what was trained is saved
    assert not (tmp_path / "run.lock").exists()
    wrong = dataclasses.replace(SHORT, train_batches=lambda first: batches(first, batch_size=16))
    with pytest.raises(DataError, match=r"have \[16\] examples over all processes"):
        loop.run(wrong, QUIET, tmp_path, CONFIG)


def test_a_profile_is_taken_where_asked(tmp_path, one_device):
    settings = dataclasses.replace(QUIET, log=log_settings(every_steps=50, profile_at=9))
    loop.run(SHORT, settings, tmp_path, CONFIG)  # ends within the five steps
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
