"""A step that does not fit the devices is told with the estimate and what to change, as early as it shows."""

import dataclasses

import jax
import numpy as np
import pytest

from localmim_jax.engine import loop, memory
from localmim_jax.engine.mesh import make_mesh
from localmim_jax.engine.state import StateSpec
from localmim_jax.errors import ConfigError
from tests.test_loop import CONFIG, QUIET
from tests.tiny import SETTINGS, TASK, batches

EXAMPLE = {name: array[0] for name, array in next(iter(batches(0))).items() if name != "id"}
TASK_OF_TWO = dataclasses.replace(TASK, num_steps=2)


@pytest.fixture(scope="module")
def spec():
    return StateSpec(TASK_OF_TWO, SETTINGS, make_mesh(SETTINGS.mesh, jax.devices()[:1]))


@pytest.fixture(scope="module")
def needed(spec):
    return memory.estimate(spec, EXAMPLE)


@pytest.fixture
def limited(monkeypatch):
    def limit(size):
        monkeypatch.setattr(memory, "device_limit", lambda spec: None if size is None else int(size))
        monkeypatch.setattr(loop, "make_mesh", lambda settings: make_mesh(settings, jax.devices()[:1]))

    return limit


def test_the_estimate_has_its_parts(spec, needed):
    params = sum(leaf.size * 4 for leaf in jax.tree.leaves(spec.abstract["params"]))
    assert needed.gradients == params
    assert needed.state == spec.bytes_per_device() > 3 * params  # AdamW has two moments
    assert needed.images == TASK.batch_size
    assert needed.activations > 0
    assert memory.device_limit(spec) is None  # a CPU does not tell


def test_a_state_that_cannot_fit_is_refused_before_it_is_made(spec, needed, limited, tmp_path, monkeypatch):
    limited(needed.state + needed.gradients - 1)
    monkeypatch.setattr(StateSpec, "create", lambda self: pytest.fail("the state was made"))
    with pytest.raises(ConfigError, match=r"do not fit into the .* GiB of each device, whatever the batch: raise mesh"):
        loop.run(TASK_OF_TWO, QUIET, tmp_path, CONFIG)


def test_activations_that_may_not_fit_are_told_before_compiling(spec, needed, limited, caplog):
    limited(needed.total)
    assert memory.warn_before_compiling(spec, EXAMPLE) == needed
    assert caplog.text == ""
    limited(needed.total - needed.activations / 2)
    memory.warn_before_compiling(spec, EXAMPLE)
    assert "this step may not fit: about" in caplog.text
    assert "set accum_steps=2, set model.remat=true, lower batch_size" in caplog.text
    limited(None)
    assert memory.warn_before_compiling(spec, EXAMPLE) is None


def test_a_compiled_step_that_cannot_fit_is_refused_before_it_runs(spec, needed, limited):
    limited(needed.total)
    memory.check_compiled(spec, int(needed.total), needed)
    memory.check_compiled(spec, None, needed)
    with pytest.raises(ConfigError, match=r"the compiled step needs .* GiB of each device, which has .*accum_steps"):
        memory.check_compiled(spec, int(needed.total) + 1, needed)


@pytest.mark.parametrize("known", [True, False])
def test_an_out_of_memory_error_of_xla_is_told_with_the_estimate(needed, limited, tmp_path, monkeypatch, known):
    limited(2 * needed.total if known else None)

    def full(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 12.50GiB.")

    monkeypatch.setattr(loop, "compile_step", full)
    with pytest.raises(ConfigError) as error:
        loop.run(TASK_OF_TWO, QUIET, tmp_path, CONFIG)
    text = str(error.value)
    assert text.startswith("out of device memory (12.50 GiB asked for)")
    assert ("; estimated: " in text) == known
    assert "accum_steps" in text
    assert "\n" not in text
    assert memory.explained(ValueError("x"), None, None) is None
    assert memory.explained(MemoryError(), None, None) is None


def test_advice_names_the_accumulation_that_is_enough(spec):
    found = memory.Estimate(10.0, 5.0, 100.0, 32)
    assert memory.advice(spec, found, 15 + 30).startswith("set accum_steps=4, ")
    assert memory.advice(spec, found, 15).startswith("raise accum_steps, ")
    assert memory.advice(spec, found, np.iinfo(int).max).startswith("raise accum_steps, ")
