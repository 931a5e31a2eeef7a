"""Where compiled programs are kept, and that JAX's own variables come first."""

import os
import subprocess
import sys

import pytest

from localmim_jax.engine import compiled


def test_programs_of_gpus_and_tpus_are_kept_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert compiled.directory("gpu") == tmp_path / ".cache/localmim_jax/compiled"
    assert compiled.directory("cpu") is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "scratch"))
    assert compiled.directory("tpu") == tmp_path / "scratch/localmim_jax/compiled"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "None"),
        ({"JAX_COMPILATION_CACHE_DIR": "/elsewhere"}, "/elsewhere"),
        ({"JAX_ENABLE_COMPILATION_CACHE": "false"}, "None"),
    ],
)
def test_a_cpu_keeps_nothing_and_variables_are_left_alone(variables, expected):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    program = "import jax; from localmim_jax.engine.compiled import keep_programs; print(keep_programs()); "
    program += "print(jax.config.jax_compilation_cache_dir)"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env={**environment, **variables}, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None", expected]
