import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from localmim_jax.errors import ConfigError
from localmim_jax.method.decoders import Decoder, DecoderConfig
from localmim_jax.method.masking import random_mask
from localmim_jax.models.upsample import Upsample, interleave


def config(target_grid, **changes):
    settings = {"in_width": 12, "feature_grid": (4, 8), "out_channels": 5, "width": 16, "num_heads": 2, "depth": 0}
    return DecoderConfig(**(settings | {"target_grid": target_grid} | changes))


@pytest.mark.parametrize(
    ("target_grid", "log2_scale"), [((32, 64), 3), ((16, 32), 2), ((8, 16), 1), ((4, 8), 0), ((2, 4), -1), ((1, 2), -2)]
)
def test_one_rule_for_every_pair_of_grids(target_grid, log2_scale):
    """Each doubling halves the width, with norm and GELU between doublings; each halving is a mean."""
    settings = config(target_grid)
    assert settings.log2_scale == log2_scale
    decoder = Decoder(settings, rngs=nnx.Rngs(0))
    assert len(decoder.upsamples) == max(log2_scale, 0)
    assert len(decoder.upsample_norms) == max(log2_scale - 1, 0)
    assert decoder.predict.kernel.shape == (16 // 2 ** max(log2_scale, 0), 5)
    out = jax.eval_shape(lambda x: interleave(decoder.rescale(x)), jax.ShapeDtypeStruct((3, 4, 8, 16), jnp.float32))
    assert out.shape == (3, *target_grid, 16 // 2 ** max(log2_scale, 0))


@pytest.mark.parametrize("target_grid", [(12, 24), (8, 8), (3, 6), (4, 16)])
def test_grids_that_cannot_be_reached_are_refused(target_grid):
    with pytest.raises(ConfigError, match="power of two"):
        config(target_grid)


def test_upsample_is_a_transposed_convolution():
    """out[2i + a, 2j + b] = sum over channels of in[i, j] times kernel[:, a, b], plus the bias."""
    upsample = Upsample(4, dtype=jnp.float32, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).standard_normal((1, 2, 3, 4)).astype(np.float32)
    kernel, bias = np.asarray(upsample.kernel[...]), np.asarray(upsample.bias[...])
    expected = np.zeros((1, 4, 6, 2), np.float32)
    for i, j in np.ndindex(2, 3):
        for a, b in np.ndindex(2, 2):
            expected[0, 2 * i + a, 2 * j + b] = x[0, i, j] @ kernel[:, a, b] + bias
    np.testing.assert_allclose(upsample(jnp.asarray(x)), expected, atol=1e-6)


def test_pooling_is_a_mean():
    decoder = Decoder(config((2, 4)), rngs=nnx.Rngs(0))
    x = jnp.arange(4 * 8 * 16, dtype=jnp.float32).reshape(1, 4, 8, 16)
    np.testing.assert_allclose(decoder.rescale(x)[0, 1, 2, 0], x[0, 2:4, 4:6].mean(axis=(0, 1)))


def test_pixels_are_predicted_before_or_after_they_move():
    decoder = Decoder(config((16, 32)), rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (2, 4, 8, 16))
    pixels = decoder.rescale(x)
    assert pixels.shape == (2, 8, 16, 4, 4)
    np.testing.assert_allclose(interleave(decoder._predictions(pixels)), decoder.predict(interleave(pixels)), atol=1e-6)


def test_channels_that_are_added_for_a_gpu_change_nothing():
    half = dataclasses.replace(config((8, 16)), dtype=jnp.bfloat16)
    decoder, plain = Decoder(half, rngs=nnx.Rngs(0)), Decoder(config((8, 16)), rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (2, 3, 8)).astype(jnp.bfloat16)

    def loss(module):
        return lambda x: jnp.sum(jnp.sin(module._predictions(x).astype(jnp.float32)))

    exact = plain.predict(x.astype(jnp.float32))
    assert decoder._predictions(x).shape == exact.shape == (2, 3, 5)
    np.testing.assert_allclose(decoder._predictions(x).astype(jnp.float32), exact, atol=0.03)
    gradient, expected = jax.grad(loss(decoder))(x), jax.grad(loss(plain))(x.astype(jnp.float32))
    np.testing.assert_allclose(gradient.astype(jnp.float32), expected, atol=0.03)


def test_masked_places_see_only_the_mask_token_and_their_position():
    """Without attention, a masked cell's prediction does not depend on the image and differs from place to place."""
    decoder = Decoder(config((4, 8)), rngs=nnx.Rngs(0))
    mask = random_mask(jax.random.key(0), 2, (4, 8), 0.75)
    features = jax.random.normal(jax.random.key(1), (2, 1 + 8, 12))
    one, other = decoder(features, mask), decoder(features + 1.5 * features**2, mask)
    hidden = np.asarray(mask.masked).reshape(2, -1) == 1
    changed = np.abs(np.asarray(one - other)).max(axis=-1) > 1e-6
    assert not changed[hidden].any()
    assert changed[~hidden].all()
    assert len(np.unique(np.asarray(one)[0][hidden[0]].round(5), axis=0)) == hidden[0].sum()
