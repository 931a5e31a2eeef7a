import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from localmim_jax import params as trees
from localmim_jax.errors import ConfigError
from localmim_jax.method.masking import random_mask
from localmim_jax.models.positions import grid_bias, relative_rows
from localmim_jax.models.vit import VARIANTS, ViT
from tests.defaults import vit_config

TINY = vit_config(image_size=(16, 24), patch_size=8, width=16, depth=3, num_heads=2)


@pytest.mark.parametrize(("variant", "millions"), [("vit_ti", 5.5), ("vit_s", 21.6), ("vit_b", 85.6), ("vit_l", 303.1)])
def test_variants_have_their_published_size(variant, millions):
    """Parameters of the encoder without position embedding, final norm and head."""
    _, params, _ = trees.split(lambda rngs: ViT(vit_config(**VARIANTS[variant]), rngs=rngs))
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert count / 1e6 == pytest.approx(millions, abs=0.1)


def test_the_papers_taps():
    assert vit_config(depth=12).default_taps == (2, 4, 10, 12)
    assert vit_config(depth=24).default_taps == (2, 4, 22, 24)


def test_masked_patches_do_not_matter():
    """The visible features are those of an image whose masked patches hold anything else."""
    model = ViT(TINY, rngs=nnx.Rngs(0))
    mask = random_mask(jax.random.key(1), 2, TINY.grid, 0.5)
    images = jax.random.normal(jax.random.key(2), (2, 16, 24, 3))
    hidden = jnp.repeat(jnp.repeat(mask.masked, 8, axis=1), 8, axis=2)[..., None]
    (one,) = model(images, mask, taps=(3,))
    (other,) = model(jnp.where(hidden == 1, 99.0, images), mask, taps=(3,))
    np.testing.assert_array_equal(one, other)
    assert one.shape == (2, 1 + 3, 16)


def test_a_mask_that_hides_nothing_is_no_mask():
    """Tokens of a permuted full sequence are the plain ones, permuted."""
    model = ViT(TINY, rngs=nnx.Rngs(0))
    images = jax.random.normal(jax.random.key(2), (1, 16, 24, 3))
    order = jnp.asarray([[3, 1, 5, 0, 2, 4]], jnp.int32)
    mask = random_mask(jax.random.key(1), 1, TINY.grid, 0.5)
    mask = type(mask)(keep=order, restore=jnp.argsort(order), masked=jnp.zeros((1, 2, 3)))
    plain = model(images, taps=(1, 3))
    shuffled = model(images, mask, taps=(1, 3))
    for a, b in zip(plain, shuffled, strict=True):
        np.testing.assert_allclose(a[:, 1:][:, order[0]], b[:, 1:], atol=1e-5)
        np.testing.assert_allclose(a[:, 0], b[:, 0], atol=1e-5)


def test_drop_path_ramps_up_and_needs_a_key():
    model = ViT(
        vit_config(image_size=(8, 8), patch_size=8, width=8, depth=5, num_heads=1, drop_path=0.4), rngs=nnx.Rngs(0)
    )
    assert model.config.drop_path_rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    images = jnp.ones((64, 8, 8, 3))
    (still,) = model(images, taps=(5,))
    assert len(np.unique(np.asarray(still).round(5), axis=0)) == 1
    (moving,) = model(images, taps=(5,), key=jax.random.key(0))
    assert len(np.unique(np.asarray(moving).round(5), axis=0)) > 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": (100, 100)}, r"legal patch sizes are \[1, 2, 4, 5, 10"),
        ({"num_heads": 5}, r"legal are \[1, 2, 3, 4, 6, 8"),
        ({"width": 30, "num_heads": 3}, "multiple of 4"),
        ({"drop_path": 1.0}, "not in"),
        ({"depth": 0}, "at least 1"),
    ],
)
def test_impossible_configurations(changes, message):
    with pytest.raises(ConfigError, match=message):
        vit_config(**changes)


def test_relative_positions_and_layer_scale_start_as_no_change_and_then_count():
    """The segmentation backbone's options: the bias table's rows against an index written out."""
    config = dataclasses.replace(TINY, depth=1, relative_position_bias=True, layer_scale=True)
    plain, model = ViT(dataclasses.replace(TINY, depth=1), rngs=nnx.Rngs(0)), ViT(config, rngs=nnx.Rngs(0))
    images = jax.random.normal(jax.random.key(2), (2, 16, 24, 3))
    np.testing.assert_array_equal(plain(images, taps=(1,))[0], model(images, taps=(1,))[0])
    block = model.blocks[0]
    assert block.attention.relative_position_bias.shape == (3 * 5 + 3, 2)
    block.scale2[...] = 2 * block.scale2[...]
    assert np.abs(plain(images, taps=(1,))[0] - model(images, taps=(1,))[0]).max() > 1e-3
    with pytest.raises(ValueError, match="whole images"):
        model(images, random_mask(jax.random.key(1), 2, TINY.grid, 0.5), taps=(1,))


def test_the_bias_of_a_pair_is_its_row_of_the_table():
    grid, heads = (2, 3), 2
    table = np.random.default_rng(0).normal(size=(relative_rows(grid), heads)).astype(np.float32)
    bias = np.asarray(grid_bias(jnp.asarray(table), grid))
    for q, k in np.ndindex(6, 6):
        dy, dx = q // 3 - k // 3, q % 3 - k % 3
        np.testing.assert_array_equal(bias[:, 1 + q, 1 + k], table[(dy + 1) * 5 + dx + 2])
    np.testing.assert_array_equal(bias[:, 0, 1:], np.repeat(table[-3][:, None], 6, axis=1))
    np.testing.assert_array_equal(bias[:, 1:, 0], np.repeat(table[-2][:, None], 6, axis=1))
    np.testing.assert_array_equal(bias[:, 0, 0], table[-1])
