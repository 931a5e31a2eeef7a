import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from localmim_jax.models import blocks
from localmim_jax.models.norm import LayerNorm, normalize
from localmim_jax.models.positions import sincos_2d

CONFIG = blocks.BlockConfig(width=8, num_heads=2)


def test_attention_is_its_definition():
    attention = blocks.Attention(CONFIG, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 5, 8)).astype(np.float32)
    bias = rng.standard_normal((1, 2, 5, 5)).astype(np.float32)
    may = np.tril(np.ones((1, 1, 5, 5), bool))
    weight = np.asarray(attention.qkv.kernel[...])
    expected = np.zeros_like(x)
    for b, head in np.ndindex(2, 2):
        q, k, v = (x[b] @ weight[:, 8 * i + 4 * head : 8 * i + 4 * head + 4] for i in range(3))
        logits = np.where(may[0, 0], q @ k.T / 2.0 + bias[0, head], -np.inf)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        expected[b, :, 4 * head : 4 * head + 4] = weights / weights.sum(axis=1, keepdims=True) @ v
    expected = expected @ np.asarray(attention.proj.kernel[...])
    np.testing.assert_allclose(attention(jnp.asarray(x), jnp.asarray(bias), jnp.asarray(may)), expected, atol=1e-5)


def test_bfloat16_keeps_float32_parameters_and_statistics():
    block = blocks.Block(blocks.BlockConfig(width=8, num_heads=2, dtype=jnp.bfloat16), rngs=nnx.Rngs(0))
    exact = blocks.Block(CONFIG, rngs=nnx.Rngs(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(block))} == {jnp.dtype("float32")}
    x = 100 + jax.random.normal(jax.random.key(0), (1, 3, 8))
    out = block(x.astype(jnp.bfloat16))
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), exact(x.astype(jnp.bfloat16).astype(jnp.float32)), atol=1.0)


def test_layer_norm_keeps_its_digits_far_from_zero():
    norm = LayerNorm(64, 1e-6, dtype=jnp.float32, rngs=nnx.Rngs(0))
    x = 3000 + np.random.default_rng(0).standard_normal((1, 64))
    expected = (x - x.mean()) / x.std()
    np.testing.assert_allclose(norm(jnp.asarray(x, jnp.float32)), expected, atol=5e-3)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 2e-6), (jnp.bfloat16, 0.02)])
def test_layer_norm_and_its_gradient_are_those_of_the_formula(dtype, tolerance):
    draw = np.random.default_rng(0).standard_normal
    x, scale, bias = 3 + draw((2, 5, 16)), 1 + 0.1 * draw(16), draw(16)
    weight = draw((2, 5, 16))

    def formula(x, scale, bias):
        centered = x - x.mean(axis=-1, keepdims=True)
        normal = centered / jnp.sqrt((centered**2).mean(axis=-1, keepdims=True) + 1e-3)
        return normal * scale[None, None] + bias[None, None]

    def weighed(function):
        return lambda *args: jnp.sum(function(*args).astype(jnp.float32) * weight.astype(np.float32))

    rounded = jnp.asarray(x, dtype)
    args = jnp.asarray(scale, jnp.float32), jnp.asarray(bias, jnp.float32)
    found = jax.grad(weighed(lambda *args: normalize(*args, 1e-3, dtype)), argnums=(0, 1, 2))(rounded, *args)
    exact = jax.grad(weighed(formula), argnums=(0, 1, 2))(rounded.astype(jnp.float32), *args)
    assert [gradient.dtype for gradient in found] == [dtype, jnp.float32, jnp.float32]
    for gradient, expected in zip(found, exact, strict=True):
        size = np.abs(expected).max()
        np.testing.assert_allclose(gradient.astype(jnp.float32), expected, atol=tolerance * size)
    out = normalize(rounded, *args, 1e-3, dtype)
    assert out.dtype == dtype
    expected = formula(rounded.astype(jnp.float32), *args)
    np.testing.assert_allclose(out.astype(jnp.float32), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gelu_is_the_exact_one_and_so_is_its_gradient(dtype):
    x = np.linspace(-9, 9, 1001).astype(np.float32)
    exact = np.array([0.5 * v * math.erfc(-v / math.sqrt(2)) for v in x])
    slope = np.array(
        [0.5 * math.erfc(-v / math.sqrt(2)) + v * math.exp(-v * v / 2) / math.sqrt(2 * math.pi) for v in x]
    )
    y, pull = jax.vjp(blocks.gelu, jnp.asarray(x, dtype))
    (gradient,) = pull(jnp.ones_like(y))
    assert y.dtype == gradient.dtype == dtype
    tolerance = 1e-6 if dtype == jnp.float32 else 0.04
    np.testing.assert_allclose(np.asarray(y, np.float32), exact, atol=tolerance, rtol=tolerance)
    np.testing.assert_allclose(np.asarray(gradient, np.float32), slope, atol=tolerance, rtol=tolerance)


def test_drop_path():
    x = jnp.ones((4000, 2, 3))
    dropped = np.asarray(blocks.drop_path(x, blocks.DropPath(jax.random.key(0), 0.75)))
    assert set(np.unique(dropped.round(5))) == {0.0, np.float32(1.33333)}
    assert (dropped == dropped[:, :1, :1]).all()  # whole examples
    np.testing.assert_allclose(dropped.mean(), 1.0, atol=0.05)
    assert blocks.drop_path(x, None) is x
    assert blocks.drop_path(x, blocks.DropPath(jax.random.key(0), 1.0)) is x


def test_remat_changes_nothing_but_memory():
    block = blocks.Block(CONFIG, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (2, 5, 8))
    plain = jax.grad(lambda x: blocks.run_block(block, False, x).sum())(x)
    again = jax.grad(lambda x: blocks.run_block(block, True, x).sum())(x)
    np.testing.assert_allclose(plain, again, atol=1e-6)


def test_initializers():
    mlp = blocks.Mlp(blocks.BlockConfig(width=64, num_heads=2), rngs=nnx.Rngs(0))
    kernel = np.asarray(mlp.fc1.kernel[...])
    bound = np.sqrt(6 / (64 + 256))
    assert bound * 0.99 < np.abs(kernel).max() <= bound
    assert not np.asarray(mlp.fc1.bias[...]).any()
    drawn = np.asarray(blocks.uniform_fan_in(16)(jax.random.key(0), (5000,)))
    assert 0.249 < drawn.max() <= 0.25
    assert -0.25 <= drawn.min() < -0.249


def test_positions_put_the_column_first():
    table = sincos_2d((3, 5), 8).reshape(3, 5, 8)
    assert (table[0, 2, :4] == table[2, 2, :4]).all()  # the same column
    assert (table[1, 0, 4:] == table[1, 4, 4:]).all()  # the same row
    x, y = np.array([3, 0.03]), np.array([2, 0.02])  # frequencies 1 and 1 / 100
    np.testing.assert_allclose(table[2, 3], np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)]), atol=1e-6)


def test_a_layer_norm_takes_the_keys_that_flaxs_does():
    """A seed means the same parameters, whichever layer norm a model has."""
    ours, flaxs = nnx.Rngs(0), nnx.Rngs(0)
    LayerNorm(4, 1e-6, dtype=jnp.float32, rngs=ours)
    nnx.LayerNorm(4, rngs=flaxs)
    assert jax.random.key_data(ours.params()).tolist() == jax.random.key_data(flaxs.params()).tolist()
