"""What can happen to a run, done to the real program: a few here, the rest in tests/test_faults_slow.py.

docs/reliability.md has the table of what is expected and what was seen.
"""

import signal

from localmim_jax.engine import manifest
from localmim_jax.engine.checkpoint import complete_steps
from tests.program import LONG, Program


def test_killed_before_a_checkpoint_counts_the_run_resumes_from_the_one_before(tmp_path):
    workdir = tmp_path / "run"
    killed = Program(workdir, environment={"LOCALMIM_FAULT": "before_publish:10"})
    assert killed.end() == -signal.SIGKILL
    assert (workdir / "checkpoints" / "10" / "manifest.json.tmp").exists()
    assert complete_steps(workdir / "checkpoints") == [5]
    resumed = Program(workdir)
    assert resumed.end() == 0, resumed.log
    assert "resuming from step 5" in resumed.log
    assert "run.lock was left by a run that died" in resumed.log
    assert complete_steps(workdir / "checkpoints") == [10, 12]  # 12, the end, although every fifth is saved


def test_a_life_with_signals_a_rival_and_a_full_disk(tmp_path):
    workdir, often = tmp_path / "run", "--config.log.every_steps=1"
    first = Program(workdir, LONG, often).wait_for("step       7/")
    rival = Program(workdir, LONG, often)
    assert rival.end() == 2, rival.log
    assert f"is in use by process {first.process.pid} on" in rival.last_line()
    assert first.signal(signal.SIGTERM).signal(signal.SIGTERM).end() == 75, first.log
    saved = complete_steps(workdir / "checkpoints")[-1]
    assert f"SIGTERM: step {saved} of 1000000 is saved" in first.last_line()

    second = Program(workdir, LONG, often).wait_for(f"step {saved + 1:7d}/")
    assert second.signal(signal.SIGINT).end() == 130, second.log
    assert f"resuming from step {saved}" in second.log
    steps = complete_steps(workdir / "checkpoints")
    assert steps[-1] > saved
    assert f"SIGINT: step {steps[-1]} of 1000000 is saved" in second.last_line()

    full = Program(workdir, LONG, file_size_limit=100_000)
    assert full.end() == 4, full.log
    assert "could not be saved" in full.last_line()
    assert full.last_line().endswith("File too large")
    assert complete_steps(workdir / "checkpoints") == steps
    assert [manifest.verify(workdir / "checkpoints" / str(step)).step for step in steps] == steps
