"""Tiny states, saved and restored in this process."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from localmim_jax.engine import mesh
from localmim_jax.engine.checkpoints.write import Checkpointer
from localmim_jax.engine.settings import CheckpointSettings
from tests.defaults import checkpoint_settings, mesh_settings


def make_state(value: int, num_devices: int = 1, fsdp: int = 1) -> dict:
    kernel = jnp.arange(64 * 64, dtype=jnp.float32).reshape(64, 64) + float(value)
    params = {
        "encoder": {"kernel": kernel, "bias": jnp.full(64, float(value))},
        "decoders": {"0": {"scale": jnp.ones(8)}},
    }
    state = {
        "params": params,
        "model_state": {},
        "opt_state": {"mu": jax.tree.map(lambda leaf: leaf * 2, params), "count": jnp.int32(value)},
        "ema": {},
        "half": jnp.full((4,), value, jnp.bfloat16),
        "step": jnp.int32(value),
    }
    devices = mesh.make_mesh(mesh_settings(fsdp=fsdp), jax.devices()[:num_devices])
    return jax.device_put(state, mesh.state_shardings(devices, state))


def abstract(state: dict) -> dict:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)


def assert_equal(found: dict, expected: dict) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for path, leaf in jax.tree_util.tree_leaves_with_path(expected):
        np.testing.assert_array_equal(
            np.asarray(dict(jax.tree_util.tree_leaves_with_path(found))[path]), np.asarray(leaf), err_msg=str(path)
        )


def write_steps(directory: Path, steps, settings: CheckpointSettings | None = None, scores=None) -> None:
    checkpointer = Checkpointer(directory, settings or checkpoint_settings(keep_last=10))
    for step in steps:
        checkpointer.save(step, make_state(step))
        if scores and step in scores:
            checkpointer.rate(step, scores[step])
    checkpointer.close()


def restore_latest(directory: Path, target: dict | None = None):
    checkpointer = Checkpointer(directory, checkpoint_settings())
    try:
        return checkpointer.restore_latest(abstract(make_state(0)) if target is None else target)
    finally:
        checkpointer.close()
