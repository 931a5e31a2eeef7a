"""A checkpoint of the first format stays readable: with today's model, on other devices, and without any model."""

import json
import shutil

import jax
import pytest

from localmim_jax.build import build_task
from localmim_jax.configs import parts
from localmim_jax.engine.checkpoints import manifest
from localmim_jax.engine.checkpoints.read import load_params
from localmim_jax.engine.checkpoints.write import Checkpointer
from localmim_jax.engine.mesh import make_mesh
from localmim_jax.engine.state import StateSpec, state_hash
from tests.defaults import checkpoint_settings, mesh_settings

STATE_HASH = "cd7ac90e6f902c3980e1b516d621811c878b1d5008c579aa8e61660b5e77c61b"


@pytest.fixture
def run(goldens, tmp_path):
    """A copy, since restoring may move what is damaged."""
    return shutil.copytree(goldens / "checkpoint_v1", tmp_path / "run")


def config_of(run):
    """Today's recipe with the recorded values; keys that came later keep their defaults."""
    config = parts.pretrain(parts.vit("vit_b"))

    def overlay(section, recorded):
        for key, value in recorded.items():
            if isinstance(value, dict):
                overlay(section[key], value)
            else:
                section[key] = tuple(value) if isinstance(value, list) else value

    overlay(config, json.loads((run / "config.json").read_text()))
    return config


@pytest.mark.parametrize(("devices", "fsdp"), [(1, 1), (4, 2)])
def test_it_restores_into_todays_model(run, devices, fsdp):
    task, settings = build_task(config_of(run), "")
    spec = StateSpec(task, settings, make_mesh(mesh_settings(fsdp=fsdp), jax.devices()[:devices]))
    checkpointer = Checkpointer(run / "checkpoints", checkpoint_settings())
    step, state = checkpointer.restore_latest(spec.abstract)
    checkpointer.close()
    assert step == int(state["step"]) == 3
    assert state_hash(state["params"]) == STATE_HASH


def test_it_loads_without_a_model(run):
    assert manifest.verify(run / "checkpoints" / "3").step == 3
    assert state_hash(jax.tree.map(jax.numpy.asarray, load_params(run))) == STATE_HASH
