"""What can happen to a run, done to the real program: one life with a few faults. The rest is in test_faults_slow.py.

docs/reliability.md has the table of what is expected and what was seen.
"""

import signal

from localmim_jax.engine.checkpoints import manifest
from localmim_jax.engine.checkpoints.read import complete_steps
from tests.program import LONG, Program

ARGUMENTS = LONG, "--config.log.every_steps=1"


def test_a_life_with_a_kill_signals_a_rival_and_a_full_disk(tmp_path):
    workdir, checkpoints = tmp_path / "run", tmp_path / "run" / "checkpoints"
    killed = Program(workdir, *ARGUMENTS, environment={"LOCALMIM_FAULT": "before_publish:10"})
    assert killed.end() == -signal.SIGKILL, killed.log
    assert (checkpoints / "10" / "manifest.json.tmp").exists()
    assert complete_steps(checkpoints) == [5]

    preempted = Program(workdir, *ARGUMENTS).wait_for("step      17/")
    assert "run.lock was left by a run that died" in preempted.log
    assert "resuming from step 5\n" in preempted.log
    rival = Program(workdir, *ARGUMENTS)
    assert rival.end() == 2, rival.log
    assert f"is in use by process {preempted.process.pid} on" in rival.last_line()
    assert preempted.signal(signal.SIGTERM).signal(signal.SIGTERM).end() == 75, preempted.log
    saved = complete_steps(checkpoints)[-1]
    assert f"SIGTERM: step {saved} of 1000000 is saved" in preempted.last_line()

    interrupted = Program(workdir, *ARGUMENTS).wait_for(f"step {saved + 1:7d}/")
    assert interrupted.signal(signal.SIGINT).end() == 130, interrupted.log
    assert f"resuming from step {saved}\n" in interrupted.log
    steps = complete_steps(checkpoints)
    assert steps[-1] > saved
    assert f"SIGINT: step {steps[-1]} of 1000000 is saved" in interrupted.last_line()

    full = Program(workdir, *ARGUMENTS, file_size_limit=30_000)  # less than one file that every save writes
    assert full.end() == 4, full.log
    assert "could not be saved" in full.last_line()
    assert full.last_line().endswith("File too large")
    assert "Traceback" not in full.log
    assert complete_steps(checkpoints) == steps
    assert [manifest.verify(checkpoints / str(step)).step for step in steps] == steps
