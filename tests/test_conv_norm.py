import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from localmim_jax.engine.mesh import BATCH_AXES, make_mesh
from localmim_jax.models.conv_norm import BatchNorm, ConvNorm
from localmim_jax.params import model_state_of
from tests.defaults import mesh_settings

X = 3 + 2 * np.random.default_rng(0).normal(size=(8, 3, 3, 4)).astype(np.float32)


def run(x):
    norm = BatchNorm(4, rngs=nnx.Rngs(0))
    return norm(x, train=True), model_state_of(norm)


@pytest.mark.parametrize("devices", [1, 4])
def test_statistics_are_of_the_whole_batch_on_any_number_of_devices(devices):
    mesh = make_mesh(mesh_settings(), jax.devices()[:devices])
    x = jax.device_put(jnp.asarray(X), NamedSharding(mesh, P(BATCH_AXES)))
    out, state = jax.jit(run)(x)
    mean, var = X.mean(axis=(0, 1, 2)), X.var(axis=(0, 1, 2))
    np.testing.assert_allclose(out, (X - mean) / np.sqrt(var + 1e-5), atol=1e-5)
    np.testing.assert_allclose(state["mean"], 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(state["var"], 0.9 + 0.1 * var * 72 / 71, rtol=1e-5)  # torch keeps the unbiased variance


def test_evaluation_uses_the_running_statistics_and_keeps_them():
    norm = BatchNorm(4, rngs=nnx.Rngs(0))
    norm.mean[...] = jnp.arange(4.0)
    norm.var[...] = jnp.full(4, 4.0)
    before = model_state_of(norm)
    out = norm(jnp.asarray(X), train=False)
    np.testing.assert_allclose(out, (X - np.arange(4)) / np.sqrt(4 + 1e-5), atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, before, model_state_of(norm))


def test_bfloat16_keeps_float32_statistics():
    layer = ConvNorm(4, 2, 3, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    out = layer(jnp.asarray(X, jnp.bfloat16), train=True)
    assert (out.dtype, out.shape) == (jnp.bfloat16, (8, 3, 3, 2))
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(layer))} == {jnp.dtype("float32")}
