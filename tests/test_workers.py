"""Input workers as processes, killed, interrupted and orphaned."""

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from localmim_jax.data.pipeline import eval_batches, train_batches
from localmim_jax.engine.checkpoints import manifest
from localmim_jax.engine.checkpoints.read import complete_steps
from localmim_jax.errors import WorkerDied
from tests.program import LONG, Program
from tests.test_pipeline import Numbered, config

ROOT = Path(__file__).parents[1]
WORKERS = "--config.data.num_workers=2", "--config.log.every_steps=1"


class Crashes:
    """A transform that takes its process down at one example, as a decoder with a bug does."""

    def __call__(self, example, rng):
        if example["label"] == 7:
            ctypes.string_at(0)
        return {"label": np.int32(example["label"])}


def workers_of(pid: int) -> list[int]:
    """The input workers among the children of a process."""
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):  # each thread has its own
        for number in children.read_text().split():
            command = Path(f"/proc/{number}/cmdline").read_bytes()
            if b"spawn_main" in command:
                found.append(int(number))
    return sorted(found)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_killed_worker_is_named_and_leaves_no_process():
    before = set(multiprocessing.active_children())
    batches = train_batches(config(6, num_workers=2, num_threads=1), Numbered(40))
    next(batches)
    workers = [child for child in multiprocessing.active_children() if child not in before]
    for number in (signal.SIGINT, signal.SIGTERM):  # as a terminal or a scheduler sends them to all
        os.kill(workers[1].pid, number)
    next(batches)
    os.kill(workers[1].pid, signal.SIGKILL)
    with pytest.raises(
        WorkerDied, match=rf"^input worker {workers[1].pid} \(one of 2\) was killed by SIGKILL; "
    ) as error:
        list(batches)
    assert error.value.exit_code == 5
    assert not any(worker.is_alive() for worker in workers)


def test_a_worker_that_crashes_in_an_evaluation_is_named():
    settings = config(6, num_workers=1, num_threads=1)
    with pytest.raises(WorkerDied, match=r"input worker .* was killed by SIGSEGV|ended as it began"):
        list(eval_batches(settings, Numbered(20), 5, transform=Crashes()))


@pytest.mark.slow
def test_the_workers_of_a_real_run(tmp_path):
    """One is killed: status 5, one line, a whole checkpoint. Ctrl-C: one line. SIGKILL of the run ends them too."""
    workdir, checkpoints = tmp_path / "run", tmp_path / "run" / "checkpoints"
    struck = Program(workdir, LONG, *WORKERS).wait_for("step       7/")
    workers = workers_of(struck.process.pid)
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    assert struck.end() == 5, struck.log
    assert f"input worker {workers[0]} (one of 2) was killed by SIGKILL" in struck.last_line()
    assert "Traceback" not in struck.log
    steps = complete_steps(checkpoints)
    assert steps[-1] >= 7
    assert [manifest.verify(checkpoints / str(step)).step for step in steps] == steps
    assert not any(map(is_running, workers))

    orphaned = (
        Program(workdir, LONG, *WORKERS)
        .wait_for(f"resuming from step {steps[-1]}")
        .wait_for(f"step {steps[-1] + 2:7d}/")
    )
    workers = workers_of(orphaned.process.pid)
    assert len(workers) == 2
    assert orphaned.kill() == -signal.SIGKILL
    end = time.monotonic() + 20
    while any(map(is_running, workers)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(is_running, workers))
    assert "leaked" not in orphaned.log


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
@pytest.mark.parametrize("moment", ["starting at step 0", "step       7/"])
def test_a_signal_to_the_whole_group(tmp_path, number, status, moment):
    """As a terminal's Ctrl-C and a scheduler's SIGTERM come: to the run and its workers, also while these begin."""
    log = tmp_path / "log"
    command = [sys.executable, "main.py", "--config=tests/tiny_config.py", f"--workdir={tmp_path}/run", LONG, *WORKERS]
    with open(log, "w") as file:
        run = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
    while moment not in log.read_text():
        assert run.poll() is None, log.read_text()
        time.sleep(0.02)
    os.killpg(run.pid, number)
    assert run.wait() == status, log.read_text()
    assert "Traceback" not in log.read_text()
    assert "is saved; the same command resumes from there" in log.read_text().splitlines()[-1]
