import json
import os
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from localmim_jax.engine import distributed
from localmim_jax.engine.checkpoints.read import complete_steps
from localmim_jax.errors import ConfigError

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


@pytest.fixture
def calls(monkeypatch):
    """What jax.distributed.initialize would have been given."""
    made = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *arguments: made.append(arguments))
    for name in (*VARIABLES, "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
        monkeypatch.delenv(name, raising=False)
    return made


def test_one_process_needs_nothing(calls, monkeypatch):
    distributed.initialize()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    distributed.initialize()
    assert calls == []


def test_flags_environment_and_launchers_are_heard(calls, monkeypatch):
    distributed.initialize("host:1", 4, 0)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    distributed.initialize()
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS")
    for name, value in zip(VARIABLES, ("other:2", "3", "2"), strict=True):
        monkeypatch.setenv(name, value)
    distributed.initialize()
    distributed.initialize(process_id=1)
    assert calls == [("host:1", 4, 0), (None, None, None), ("other:2", 3, 2), ("other:2", 3, 1)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("host:1", None, None), "need all of --coordinator_address"),
        ((None, 2, 0), "need all of --coordinator_address"),
        (("host:1", 2, 2), "--process_id is 2; with --num_processes=2 it must be from 0 to 1"),
    ],
)
def test_half_an_answer_is_refused(calls, arguments, message):
    with pytest.raises(ConfigError, match=message):
        distributed.initialize(*arguments)
    assert calls == []


def test_a_bad_variable_and_a_failure_to_meet_are_one_line(calls, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("DEADLINE_EXCEEDED: nobody there\nlong\ntrace")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    with pytest.raises(ConfigError, match=r"did not find each other \(DEADLINE_EXCEEDED: nobody there\)"):
        distributed.initialize("host:1", 2, 0)
    monkeypatch.setenv("JAX_NUM_PROCESSES", "two")
    with pytest.raises(ConfigError, match="JAX_NUM_PROCESSES is 'two'"):
        distributed.initialize()


NO_CHIPS = {"TPU_SKIP_MDS_QUERY": "1"}  # jax sets it when it is imported on a machine without a TPU


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (NO_CHIPS, ""),  # libtpu is installed, for `localmim plan`
        ({}, "a TPU slice"),  # a TPU machine, of one host or more: its metadata tell
        (NO_CHIPS | {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}, ""),  # one host, by Kubernetes
        (NO_CHIPS | {"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "1"}, "a TPU slice"),
        (NO_CHIPS | {"TPU_PROCESS_ADDRESSES": "a:1,b:1"}, "a TPU slice"),
        (NO_CHIPS | {"TPU_PROCESS_ADDRESSES": "a:1", "TPU_WORKER_HOSTNAMES": "a,b"}, ""),  # as jax reads them
        (NO_CHIPS | {"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"}, "a TPU slice"),
        (NO_CHIPS | {"TPU_PROCESS_ADDRESSES_PATH": "hosts.txt"}, "a TPU slice"),
        (NO_CHIPS | {"SLURM_STEP_NUM_TASKS": "1", "OMPI_COMM_WORLD_SIZE": "1", "PMI_SIZE": ""}, ""),
        (NO_CHIPS | {"SLURM_STEP_NUM_TASKS": "2", "PMI_SIZE": "2"}, "SLURM"),
        (NO_CHIPS | {"OMPI_COMM_WORLD_SIZE": "2"}, "Open MPI"),
        (NO_CHIPS | {"PMI_SIZE": "2"}, "MPI"),  # MPICH and Intel MPI
    ],
)
def test_the_environment_tells_whether_there_are_other_processes(environ, expected):
    for platforms in (None, "", "tpu,cpu"):
        assert distributed.launched_by(environ, platforms, has_libtpu=True) == expected
    without = "" if "TPU" in expected else expected
    assert distributed.launched_by(environ, "cpu", has_libtpu=True) == without
    assert distributed.launched_by(environ, None, has_libtpu=False) == without


_STARTS = """
import os
from localmim_jax.engine import distributed
from localmim_jax.errors import ConfigError
distributed.initialize()
print(distributed.jax.distributed.is_initialized())
os.environ["PMI_SIZE"] = "2"
try:
    distributed.initialize()
except ConfigError as error:
    print(error)
"""


def test_libtpu_without_a_tpu_is_one_process_and_an_unknown_launcher_one_line(tmp_path):
    """In a process of its own, where jax itself looks for chips; libtpu is a package of that name."""
    (tmp_path / "libtpu.py").write_text("def get_library_path(): return __file__")
    others = ("JAX_", "TPU_", "SLURM_", "OMPI_", "PMI_", "KUBERNETES_")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    environ["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{os.getcwd()}"
    found = subprocess.run([sys.executable, "-c", _STARTS], env=environ, capture_output=True, text=True, timeout=120)
    alone, refused = found.stdout.splitlines()
    assert alone == "False"
    assert "says that MPI started several processes" in refused
    assert "give --coordinator_address, --num_processes and --process_id" in refused


def test_after_other_use_of_jax_one_host_goes_on_and_several_are_refused(monkeypatch):
    jax.devices()
    with pytest.raises(ConfigError, match="jax was used in this process before the run began"):
        distributed.initialize("127.0.0.1:1", 2, 0)
    monkeypatch.setattr(distributed, "launched_by", lambda *_: "a TPU slice")
    distributed.initialize()
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ConfigError, match="jax was used in this process before the run began"):
        distributed.initialize()


def start(workdir, count, num_steps, devices):
    """The processes of one run on this host."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = f"--xla_force_host_platform_device_count={devices}"
    return [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.two_processes",
                str(port),
                str(count),
                str(index),
                str(workdir),
                str(num_steps),
            ],
            env=os.environ | {"XLA_FLAGS": flags},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(count)
    ]


def finish(processes, returncode=0):
    outputs = [process.communicate(timeout=600)[0] for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == returncode, output
    return outputs


def results(outputs):
    return [line.split(maxsplit=2)[2] for text in outputs for line in text.splitlines() if line.startswith("RESULT")]


def losses(workdir):
    entries = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {entry["step"]: entry["loss"] for entry in entries if "loss" in entry}


@pytest.mark.slow
def test_two_processes_train_evaluate_stop_together_and_resume(tmp_path):
    steps = 400
    whole = results(finish(start(tmp_path / "whole", 2, steps, devices=2)))
    assert len(whole) == 2
    assert whole[0] == whole[1]  # parameters and evaluation
    assert "'test/distinct': 60.0" in whole[0]

    single = results(finish(start(tmp_path / "single", 1, steps, devices=4)))
    assert single[0].split()[1:] == whole[0].split()[1:]
    one, two = losses(tmp_path / "single"), losses(tmp_path / "whole")
    assert list(one) == list(two) == list(range(1, steps + 1))
    np.testing.assert_allclose([one[step] for step in range(1, 11)], [two[step] for step in range(1, 11)], rtol=1e-5)

    stopped = start(tmp_path / "stopped", 2, steps, devices=2)
    report = tmp_path / "stopped" / "metrics.jsonl"
    while not report.exists() or len(report.read_text().splitlines()) < 8:
        assert all(process.poll() is None for process in stopped), finish(stopped)
        time.sleep(0.02)
    stopped[1].send_signal(signal.SIGTERM)
    outputs = finish(stopped, returncode=1)
    saved = complete_steps(tmp_path / "stopped" / "checkpoints")[-1]
    assert 8 <= saved < steps
    assert all(f"Preempted: SIGTERM: step {saved} of {steps} is saved" in output for output in outputs)
    assert results(finish(start(tmp_path / "stopped", 2, steps, devices=2))) == whole
