"""The whole method against the authors' release: latents, targets, predictions, losses and every gradient norm."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from localmim_jax import params as trees
from localmim_jax.convert import names
from localmim_jax.errors import ConfigError
from localmim_jax.method.localmim import LocalMIM, draw_mask, pretrain_loss, scale_names
from localmim_jax.method.targets import make_targets
from tests.defaults import localmim_config, target_config, vit_config
from tests.oracle import PretrainOracle

NAMES = ["vit_hog9", "vit_hog18_bias"]


@pytest.fixture(scope="module", params=NAMES)
def oracle(request):
    return PretrainOracle(request.param)


@pytest.fixture(scope="module")
def outputs(oracle):
    graphdef, params = oracle.params()
    mask = oracle.mask(oracle.file["noise"])

    def loss(params):
        model = trees.merge(graphdef, params)
        value, metrics = pretrain_loss(model, oracle.images, mask)
        features = model.encoder(oracle.images, mask=mask, taps=model.config.taps)
        normed = [decoder.norm(f) for decoder, f in zip(model.decoders, features, strict=True)]
        return value, (metrics, normed, model.predict(oracle.images, mask))

    (value, aux), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return value, *aux, gradients


def test_masks(oracle):
    mask = oracle.mask(oracle.file["noise"])
    np.testing.assert_array_equal(mask.restore, oracle.file["ids_restore"])
    np.testing.assert_array_equal(mask.masked.reshape(2, -1), oracle.file["mask"])
    for i, decoder in enumerate(oracle.config.decoders()):
        np.testing.assert_array_equal(mask.resized_to(decoder.target_grid), oracle.file[f"loss_mask/{i}"])


def test_targets(oracle):
    for i, target in enumerate(jax.jit(make_targets, static_argnums=1)(oracle.images, oracle.config.target)):
        np.testing.assert_allclose(target, oracle.file[f"target/{i}"], atol=1e-6, rtol=0)


def test_latents_and_predictions(oracle, outputs):
    _, _, latents, predictions, _ = outputs
    for i in range(4):
        np.testing.assert_allclose(latents[i], oracle.file[f"latent/{i}"], atol=1e-5, rtol=0)
        np.testing.assert_allclose(predictions[i], oracle.file[f"pred/{i}"], atol=1e-5, rtol=0)


def test_losses(oracle, outputs):
    value, metrics, *_ = outputs
    np.testing.assert_allclose(value, oracle.file["loss"], rtol=1e-5)
    for i, name in enumerate(scale_names(oracle.config)):
        np.testing.assert_allclose(metrics[name], oracle.file[f"loss/{i}"], rtol=1e-5)


def test_every_gradient_norm(oracle, outputs):
    flat = trees.flatten(outputs[-1])
    expected = {k.removeprefix("grad_norm/"): v for k, v in oracle.file.items() if k.startswith("grad_norm/")}
    ours = {names.release_name(path, oracle.rules())[0]: np.linalg.norm(g) for path, g in flat.items()}
    assert ours.keys() == expected.keys()
    for name, norm in ours.items():
        np.testing.assert_allclose(norm, expected[name], rtol=1e-4, atol=1e-7, err_msg=name)


def tiny(**changes):
    encoder = {"image_size": (32, 32), "patch_size": 8, "width": 16, "depth": 4, "num_heads": 2} | {
        key: changes.pop(key) for key in list(changes) if key in ("image_size", "patch_size", "in_channels", "depth")
    }
    target = {"cells": (2, 4, 8, 16), "bins": 6} | {
        key: changes.pop(key) for key in list(changes) if key in ("cells", "bins", "kind", "hog_bias")
    }
    settings = {"taps": (1, 2, 3, 4), "decoder_width": 16, "decoder_num_heads": 2} | changes
    return localmim_config(encoder=vit_config(**encoder), target=target_config(**target), **settings)


@pytest.mark.parametrize(
    ("config", "images"),
    [
        (tiny(image_size=(48, 32), in_channels=1, cells=(4, 8, 8, 16)), (2, 48, 32, 1)),
        (tiny(in_channels=5, kind="pixels", mask_ratio=0.4), (2, 32, 32, 5)),
        (tiny(taps=(4, 4), cells=(1, 32), decoder_depth=2), (2, 32, 32, 3)),
    ],
)
def test_general_shapes(config, images):
    """Non-square, any channel count, repeated taps, far scales: one finite step, and gradient to every parameter."""
    graphdef, _, _ = trees.split(lambda rngs: LocalMIM(config, rngs=rngs))
    params, _ = jax.jit(lambda key: trees.initialize(lambda rngs: LocalMIM(config, rngs=rngs), key))(jax.random.key(0))
    pixels = jax.random.normal(jax.random.key(1), images)

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        model = trees.merge(graphdef, params)
        return pretrain_loss(model, pixels, draw_mask(jax.random.key(2), config, images[0]))[0]

    value, gradients = loss(params)
    assert jnp.isfinite(value)
    assert value > 0
    unreached = [path for path, g in trees.flatten(gradients).items() if not jnp.any(g)]
    assert unreached == []


def test_the_compiled_loss_reads_by_names():
    config = tiny()
    params, _ = jax.eval_shape(lambda key: trees.initialize(config.make, key), jax.random.key(0))
    graphdef, _, _ = trees.split(config.make)

    def loss(params, images, key):
        return pretrain_loss(trees.merge(graphdef, params), images, draw_mask(key, config, len(images)))[0]

    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    text = jax.jit(jax.grad(loss)).lower(params, images, jax.random.key(0)).compile().as_text()
    names = {re.sub(r"(jvp|transpose)\(|\)", "", name) for name in re.findall(r'op_name="([^"]*)"', text)}
    scopes = [
        "masking",
        "encoder/patch_embed",
        "encoder/block_03/attention",
        "encoder/block_04/mlp",
        *(f"decoder_{cell}px/block_01/attention" for cell in config.target.cells),
        "decoder_2px/rescale/upsample",
        "decoder_16px/prediction",
        "hog",
        "loss",
    ]
    assert [scope for scope in scopes if not any(f"/{scope}/" in name for name in names)] == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": (30, 32)}, "legal patch sizes are"),
        ({"cells": (2, 4, 8, 12)}, "legal cells are [1, 2, 4, 8, 16, 32]"),
        ({"cells": (2, 4)}, "one each"),
        ({"taps": (1, 2, 3, 5)}, "from 1 to 4"),
        ({"mask_ratio": 1.0}, "choose a ratio"),
        ({"mask_ratio": 0.0}, "choose a ratio"),
        ({"kind": "edges"}, "choose 'hog' or 'pixels'"),
        ({"hog_bias": ((0.1, 0.2),)}, "one pair per scale"),
        ({"decoder_width": 18}, "multiple of 4"),
    ],
)
def test_impossible_combinations_name_the_legal_values(changes, message):
    with pytest.raises(ConfigError) as error:
        tiny(**changes)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
