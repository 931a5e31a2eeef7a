"""The faults that take minutes: `make test-slow`, or `pytest -m slow tests/test_faults_slow.py`.

docs/reliability.md has the table of what is expected and what was seen.
"""

import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from localmim_jax.engine.checkpoints import manifest
from localmim_jax.engine.checkpoints.read import complete_steps, load_params
from tests.program import LONG, Program, several

pytestmark = pytest.mark.slow
EVERY_STEP = "--config.log.every_steps=1"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Program:
    """The run that nothing happens to."""
    program = Program(tmp_path_factory.mktemp("whole") / "run")
    assert program.end() == 0, program.log
    return program


def newest(workdir: Path) -> int:
    return max(complete_steps(workdir / "checkpoints"), default=0)


def flip_a_bit(step: Path) -> None:
    data = max(step.rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 4
    data.write_bytes(content)


def is_saving(directory: Path) -> bool:
    """Whether a checkpoint is being written, or is written and not yet published."""
    return any(not manifest.exists(path) for path in directory.glob("*"))


def wait(program: Program, happens: Callable[[], bool]) -> None:
    while not happens():
        assert program.process.poll() is None, program.log
        time.sleep(0.001)


def test_twenty_kills_at_random_moments_cost_nothing_that_was_saved(tmp_path):
    """Every other kill waits for a save to be under way. At the end every array is that of an uninterrupted run."""
    settings = ["--config.num_steps=800", "--config.checkpoint.every_steps=3", "--config.log.every_steps=100"]
    workdir, whole = tmp_path / "killed", Program(tmp_path / "whole", *settings)
    assert whole.end() == 0, whole.log
    moments = random.Random(0)
    for turn in range(20):
        saved, program = newest(workdir), Program(workdir, *settings)
        program.wait_for("step compiled")
        until = saved + 3 * moments.randrange(5)
        wait(program, lambda until=until: newest(workdir) >= until)
        time.sleep(moments.uniform(0, 0.3))
        if turn % 2:
            wait(program, lambda: is_saving(workdir / "checkpoints"))
        assert program.kill() == -signal.SIGKILL, program.log
        assert (f"resuming from step {saved}" if saved else "starting at step 0") in program.log
        assert newest(workdir) >= saved
    last = Program(workdir, *settings)
    assert last.end() == 0, last.log
    assert last.state_hash() == whole.state_hash()
    for part in ("params", "opt_state"):
        same = jax.tree.map(np.array_equal, load_params(workdir, part), load_params(tmp_path / "whole", part))
        assert all(jax.tree.leaves(same))
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["798", "800"]


@pytest.mark.parametrize(
    ("fault", "resumes_from"),
    [
        ("before_save:10", {5}),
        ("after_write:10", {5}),
        ("before_publish:10", {5}),
        ("in_step:11", {5, 10}),  # whether the save of step 10 had ended by then
    ],
)
def test_killed_at_a_named_point(tmp_path, whole, fault, resumes_from):
    assert Program(tmp_path / "run", environment={"LOCALMIM_FAULT": fault}).end() == -signal.SIGKILL
    resumed = Program(tmp_path / "run")
    assert resumed.end() == 0, resumed.log
    assert any(f"resuming from step {step}\n" in resumed.log for step in resumes_from)
    assert resumed.state_hash() == whole.state_hash()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_while_a_save_is_under_way_loses_neither(tmp_path, number, status):
    program = Program(tmp_path / "run", LONG, "--config.checkpoint.every_steps=50").wait_for("step compiled")
    wait(program, lambda: is_saving(tmp_path / "run" / "checkpoints"))
    assert program.signal(number).end() == status, program.log
    steps = complete_steps(tmp_path / "run" / "checkpoints")
    assert f"step {steps[-1]} of 1000000 is saved" in program.last_line()
    assert any(step % 50 == 0 for step in steps)
    assert [manifest.verify(tmp_path / "run" / "checkpoints" / str(step)).step for step in steps] == steps
    assert not (tmp_path / "run" / "run.lock").exists()


def test_stopped_and_resumed_ends_as_if_nothing_had_happened(tmp_path):
    settings = ["--config.num_steps=300", EVERY_STEP, "--config.checkpoint.every_steps=1000"]
    whole = Program(tmp_path / "whole", *settings)
    assert whole.end() == 0, whole.log
    program = Program(tmp_path / "run", *settings).wait_for("step  20/")
    assert program.signal(signal.SIGTERM).end() == 75, program.log
    resumed = Program(tmp_path / "run", *settings)
    assert resumed.end() == 0, resumed.log
    assert resumed.state_hash() == whole.state_hash()


@pytest.mark.parametrize(("devices", "accum_steps"), [(1, 1), (4, 2)])
def test_resuming_within_at_the_end_and_at_the_start_of_an_epoch(tmp_path, devices, accum_steps):
    """Four steps are an epoch. Every step is kept, and the run is resumed from one as if it had been the newest."""
    settings = ["--config.checkpoint.every_steps=1", f"--config.accum_steps={accum_steps}"]
    whole = Program(tmp_path / "whole", *settings, "--config.checkpoint.keep_last=99", devices=devices)
    assert whole.end() == 0, whole.log
    for step in (6, 8, 9):
        workdir = tmp_path / str(step)
        shutil.copytree(tmp_path / "whole" / "checkpoints" / str(step), workdir / "checkpoints" / str(step))
        shutil.copy(tmp_path / "whole" / "config.json", workdir)
        resumed = Program(workdir, *settings, devices=devices)
        assert resumed.end() == 0, resumed.log
        assert f"resuming from step {step}\n" in resumed.log
        assert resumed.state_hash() == whole.state_hash()


def test_a_second_ctrl_c_leaves_at_once_and_checkpoints_are_whole(tmp_path):
    program = Program(tmp_path / "run", LONG, EVERY_STEP).wait_for("step      11/")
    assert program.signal(signal.SIGINT).wait_for("Ctrl-C").signal(signal.SIGINT).end() == 130, program.log
    steps = complete_steps(tmp_path / "run" / "checkpoints")
    assert steps
    assert [manifest.verify(tmp_path / "run" / "checkpoints" / str(step)).step for step in steps] == steps
    resumed = Program(tmp_path / "run", LONG, EVERY_STEP).wait_for(f"resuming from step {steps[-1]}")
    resumed.kill()


def test_twenty_preemptions_in_a_row_each_make_progress_in_bounded_space(tmp_path):
    settings = [LONG, EVERY_STEP, "--config.checkpoint.every_steps=20", "--config.checkpoint.keep_every_steps=100"]
    saved = 0
    for _ in range(20):
        program = Program(tmp_path / "run", *settings).wait_for(f"step {saved + 3:7d}/")
        assert program.signal(signal.SIGTERM).end() == 75, program.log
        assert newest(tmp_path / "run") > saved
        saved = newest(tmp_path / "run")
    steps = complete_steps(tmp_path / "run" / "checkpoints")
    assert sorted(map(int, (path.name for path in (tmp_path / "run" / "checkpoints").iterdir()))) == steps
    assert set(steps[:-2]) <= {step for step in steps if step % 100 == 0}


def test_sigterm_to_one_of_two_processes_and_a_kill_of_both(tmp_path):
    settings = ["--config.num_steps=300", EVERY_STEP, "--config.mesh.fsdp=2", "--config.checkpoint.every_steps=15"]
    whole = several(tmp_path / "whole", 2, *settings)
    assert [program.end() for program in whole] == [0, 0], whole[0].log + whole[1].log

    first, second = several(tmp_path / "run", 2, *settings)
    first.wait_for("step  20/")
    second.signal(signal.SIGTERM)
    assert (first.end(), second.end()) == (75, 75), first.log + second.log
    saved = newest(tmp_path / "run")
    assert all(f"SIGTERM: step {saved} of 300 is saved" in program.last_line() for program in (first, second))

    killed = several(tmp_path / "run", 2, *settings)
    killed[0].wait_for(f"step {saved + 20:3d}/")
    assert [program.kill() for program in killed] == [-signal.SIGKILL] * 2
    assert newest(tmp_path / "run") > saved

    resumed = several(tmp_path / "run", 2, *settings)
    assert [program.end() for program in resumed] == [0, 0], resumed[0].log + resumed[1].log
    assert resumed[0].state_hash() == whole[0].state_hash()
    alone = Program(tmp_path / "run", *settings[:2])  # the same run on one process
    assert alone.end() == 0, alone.log
    assert alone.state_hash() == whole[0].state_hash()


def test_damage_and_strangers(tmp_path, whole):
    workdir = tmp_path / "run"
    assert Program(workdir).end() == 0
    (workdir / "checkpoints" / "999999").mkdir()
    flip_a_bit(workdir / "checkpoints" / "12")
    resumed = Program(workdir)
    assert resumed.end() == 0, resumed.log
    assert "CHECKPOINT 12 IS DAMAGED" in resumed.log
    assert "checkpoints/999999 has no manifest" in resumed.log
    assert "resuming from the older step 10" in resumed.log
    assert resumed.state_hash() == whole.state_hash()
    assert [path.name.split("-")[0] for path in (workdir / "quarantine").iterdir()] == ["12"]

    for step in complete_steps(workdir / "checkpoints"):
        flip_a_bit(workdir / "checkpoints" / str(step))
    for message in ("every checkpoint is damaged: 12 ", "no checkpoint is left in"):  # never from step 0
        refused = Program(workdir)
        assert refused.end() == 4, refused.log
        assert message in refused.last_line()


def test_a_workdir_that_vanishes_or_never_was(tmp_path):
    program = Program(tmp_path / "run", LONG, EVERY_STEP).wait_for("step      11/")
    while (tmp_path / "run").exists():
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
    assert program.end() == 4, program.log
    assert program.last_line().startswith("main.py: step ")
    assert "Traceback" not in program.log
    (tmp_path / "file").write_text("")
    program = Program(tmp_path / "run", f"--workdir={tmp_path}/file/run")
    assert program.end() == 4, program.log
    assert f"{tmp_path}/file/run cannot be written: Not a directory" in program.last_line()


def test_a_diverged_run_keeps_its_last_good_checkpoint(tmp_path):
    program = Program(tmp_path / "run", "--config.num_steps=100", "--config.schedule.base_lr=1e38")
    assert program.end() == 3, program.log
    assert "not finite in 10 steps in a row" in program.last_line()
    assert (tmp_path / "run" / "diverged.json").exists()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(load_params(tmp_path / "run")))
