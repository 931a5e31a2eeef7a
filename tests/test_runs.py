"""The runs behind tables: their state told from disk, what is missing done, nothing done twice."""

import os
import shlex
import signal
import threading
import time
from pathlib import Path

import pytest

from localmim_jax.cli import tables
from localmim_jax.cli.experiments import Run, State, last_step, metrics
from localmim_jax.engine.checkpoints.lock import RunLock
from localmim_jax.errors import Preempted


def tiny(workdir, *overrides):
    return Run(
        "tests/tiny_config.py",
        str(workdir),
        ("num_steps=150", "log.every_steps=10", "checkpoint.every_steps=100", *overrides),
    )


def files(workdir):
    return {path: path.stat().st_mtime_ns for path in Path(workdir).rglob("*")}


@pytest.mark.slow
def test_an_interrupted_run_goes_on_and_a_finished_one_is_left_as_it_is(tmp_path):
    first, second = tiny(tmp_path / "first", "num_steps=20"), tiny(tmp_path / "second")
    assert [run.progress() for run in (first, second)] == ["missing", "missing"]

    def stop():
        deadline = time.monotonic() + 300
        while not metrics(tmp_path / "second") and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    watcher = threading.Thread(target=stop)
    watcher.start()
    with pytest.raises(Preempted):
        tables.make([first, second], tmp_path)
    watcher.join()
    assert (first.state(), second.state()) == (State.DONE, State.BEGUN)
    assert second.progress().startswith("begun, step ")
    assert second.progress().endswith(" of 150")
    finished = files(first.workdir)

    tables.make([first, second], tmp_path)
    assert (first.progress(), second.progress()) == ("done", "done")
    assert files(first.workdir) == finished
    steps = [line["step"] for line in metrics(tmp_path / "second") if "loss" in line]
    assert steps == sorted(set(steps))
    assert steps[-1] == last_step(tmp_path / "second") == 150
    assert tables.listing([first, second]).splitlines()[1] == f"done  {second.command()}"


def test_a_run_that_somebody_else_makes_is_left_alone(tmp_path, caplog):
    run = tiny(tmp_path)
    with RunLock(tmp_path):
        assert run.state() is State.RUNNING
        tables.make([run], tmp_path)
    assert run.state() is State.MISSING
    assert "is running elsewhere: skipped" in caplog.text
    assert metrics(tmp_path) == []


def test_what_starts_from_a_run_that_is_not_done_waits(tmp_path, caplog):
    first = tmp_path / "first"
    second = tiny(tmp_path / "second", f"checkpoint.init_from={first}")
    assert (second.start(), tiny(first).start()) == (first, None)
    first.mkdir()
    with RunLock(first):
        tables.make([tiny(first), second], tmp_path)
    assert second.state() is State.MISSING
    assert f"second starts from {first}, which is not done: skipped" in caplog.text


def test_a_run_that_somebody_else_starts_after_the_look_is_left_alone(tmp_path, caplog, monkeypatch):
    """The other process takes the lock between our look at the state and our start."""
    run, lock = tiny(tmp_path / "run"), RunLock(tmp_path / "run")
    (tmp_path / "run").mkdir()
    load = Run.load

    def late(self):
        lock.__enter__()
        return load(self)

    monkeypatch.setattr(Run, "load", late)
    try:
        tables.make([run], tmp_path)
    finally:
        lock.__exit__()
    assert f"skipped: {run.workdir} is in use by process {os.getpid()}" in caplog.text
    assert metrics(tmp_path / "run") == []


def test_the_command_for_a_shell_is_the_run():
    run = Run("configs/small.py:vit_local_multi", "runs/with space", ("seed=1", "checkpoint.init_from=a b"))
    assert shlex.split(run.command()) == [
        *("localmim", "train", "--config=configs/small.py:vit_local_multi"),
        *("--workdir=runs/with space", "--config.seed=1", "--config.checkpoint.init_from=a b"),
    ]
    assert Run(run.config, "x", ("seed=1",)).load().seed == 1


def test_a_line_that_is_being_written_is_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert metrics(tmp_path) == [{"step": 1, "loss": 2.0}]
