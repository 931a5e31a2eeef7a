"""A config's run in this process, on the first few of the fake devices."""

import contextlib

import jax
import pytest

from localmim_jax.build import build_task
from localmim_jax.engine import loop
from localmim_jax.engine.mesh import make_mesh
from localmim_jax.recipes.override import record


@contextlib.contextmanager
def first_devices(count):
    """Inside, `loop.run` takes the first `count` devices instead of all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_mesh", lambda mesh: make_mesh(mesh, jax.devices()[:count]))
        yield


def train(config, workdir, devices=1):
    """The summary of the run that `main.py` would make of the config."""
    task, settings = build_task(config, str(workdir))
    with first_devices(devices):
        return loop.run(task, settings, workdir, record(config))
