"""Equal blocks as a loop: the same numbers and gradients as unrolled, for ViT, Swin, and with stochastic depth."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from localmim_jax.engine.flops import count_flops
from localmim_jax.models.block_loop import DropPaths
from localmim_jax.recipes.load import load_config
from localmim_jax.tasks.from_config import encoder_config
from tests.defaults import swin_config, vit_config

VIT = vit_config(image_size=(16, 16), patch_size=8, width=8, depth=3, num_heads=2, drop_path=0.5)
SWIN = swin_config(image_size=(32, 32), width=8, depths=(4, 1), num_heads=(1, 1), window=4, drop_path=0.5)


def value_and_gradients(config, taps, **changes):
    graphdef, params = nnx.split(config.make(nnx.Rngs(0)))
    changed = dataclasses.replace(config, **changes)
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: changed.make(nnx.Rngs(0))))
    images = jax.random.normal(jax.random.key(1), (6, *config.image_size, 3))

    def loss(params):
        features = nnx.merge(graphdef, params)(images, taps=taps, key=jax.random.key(2))
        return sum(jnp.sum(jnp.sin(feature)) for feature in features)

    step = jax.jit(jax.value_and_grad(loss))
    return step.trace(params).jaxpr, step(params)


@pytest.mark.parametrize(("config", "taps", "remat"), [(VIT, (1, 3), True), (SWIN, (1,), False)])
def test_a_loop_computes_what_unrolled_blocks_do(config, taps, remat):
    jaxpr, (unrolled, gradients) = value_and_gradients(config, taps)
    looped_jaxpr, (looped, found) = value_and_gradients(config, taps, scan_blocks=True, remat=remat)
    np.testing.assert_allclose(looped, unrolled, rtol=1e-5)
    for leaf, expected in zip(jax.tree.leaves(found), jax.tree.leaves(gradients), strict=True):
        np.testing.assert_allclose(leaf, expected, atol=2e-4)
    names = str(looped_jaxpr)
    assert "scan[" in names
    assert "scan[" not in str(jaxpr)
    if not remat:
        assert count_flops(looped_jaxpr) == pytest.approx(count_flops(jaxpr))


def test_blocks_of_a_loop_drop_by_their_own_rates_and_numbers():
    drops = DropPaths(jax.random.key(0), 3, (0.0, 0.25))
    assert [drops.of(i).keep for i in range(2)] == [1.0, 0.75]
    assert drops.of(1).key == jax.random.fold_in(jax.random.key(0), 4)


def test_scan_blocks_is_for_tpus_unless_it_is_set():
    config = load_config("configs/vit_b_100ep.py")
    assert config.model.scan_blocks is None
    assert not encoder_config(config).scan_blocks  # tests/test_planning_compile.py has a TPU's devices
    config.model.scan_blocks = True
    assert encoder_config(config).scan_blocks
