"""Swin against the authors' release, and its promises that the release does not keep."""

import dataclasses
import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from localmim_jax import params as trees
from localmim_jax.convert import names, swin_names
from localmim_jax.errors import ConfigError
from localmim_jax.method.localmim import LocalMIM, draw_mask, pretrain_loss, scale_names
from localmim_jax.method.masking import mask_from_noise
from localmim_jax.method.targets import make_targets
from localmim_jax.models.swin import VARIANTS, Swin
from localmim_jax.models.swin_blocks import PatchMerging
from tests.defaults import localmim_config, swin_config, target_config
from tests.oracle import GOLDENS

TINY = {"width": 8, "depths": (2, 2, 4, 2), "num_heads": (1, 2, 4, 8)}
ORACLES = {
    "swin_hog15": (target_config(kind="hog", bins=15, cells=(8, 16, 32, 32)), ("packed",) * 4),
    "swin_pixel": (target_config(kind="pixels", cells=(8, 16, 32, 32)), ("plain",) * 4),
}


def imported(make_model, rules, source):
    """(graphdef, params) of a model filled with the release's arrays."""
    graphdef, abstract, _ = trees.split(make_model)
    flat = trees.flatten(abstract)
    arrays = names.import_arrays(source, flat, rules)
    assert {path: array.shape for path, array in arrays.items()} == {path: leaf.shape for path, leaf in flat.items()}
    return graphdef, trees.unflatten({path: jnp.asarray(array) for path, array in arrays.items()})


def release(name):
    file = dict(np.load(GOLDENS / f"{name}.npz"))
    return file, {key.removeprefix("param/"): value for key, value in file.items() if key.startswith("param/")}


def encode(config, rules, source, images, taps):
    """Dense features of an encoder filled with the release's arrays."""
    graphdef, params = imported(lambda rngs: nnx.Dict(encoder=Swin(config, rngs=rngs)), rules, source)
    return jax.jit(lambda p, x: trees.merge(graphdef, p)["encoder"](x, taps=taps))(params, images)


class PretrainOracle:
    """A pre-training golden and everything our model makes of its inputs, in one compilation."""

    def __init__(self, name):
        target, forms = ORACLES[name]
        self.name = name
        self.file, source = release(name)
        self.config = localmim_config(
            encoder=swin_config(sparse_attention=forms, **TINY),
            taps=(1, 2, 3, 4),
            target=target,
            decoder_width=(8, 16, 16, 16),
            decoder_num_heads=2,
            num_masks=1,
        )
        self.rules = (*swin_names.encoder("encoder."), *(rule for i in range(4) for rule in swin_names.decoder(i)))
        graphdef, params = imported(lambda rngs: LocalMIM(self.config, rngs=rngs), self.rules, source)
        images = jnp.asarray(self.file["images"])
        units = self.file["mask"]
        self.mask = mask_from_noise(jnp.asarray(units + np.arange(49) / 100), (7, 7), int((units == 0).sum()))

        @jax.jit
        @functools.partial(jax.value_and_grad, has_aux=True)
        def loss(params):
            model = trees.merge(graphdef, params)
            features = model.encoder(images, mask=self.mask, taps=self.config.taps)
            latents = [decoder.norm(f) for decoder, f in zip(model.decoders, features, strict=True)]
            model.encoder = lambda *args, **kwargs: features
            predictions = model.predict(images, self.mask)
            value, metrics = pretrain_loss(model, images, self.mask)
            return value, (metrics, latents, predictions, make_targets(images, target))

        (self.loss, aux), self.gradients = loss(params)
        self.metrics, self.latents, self.predictions, self.targets = aux

    def thinned(self, arrays, tap):
        """What of an array the golden holds: everything of HOG, a part of pixels."""
        if self.name == "swin_hog15":
            return arrays[tap]
        return arrays[tap][:, ::16, ::4] if tap < 2 else arrays[tap][:, ::8, ::16]


@pytest.fixture(scope="module", params=sorted(ORACLES))
def oracle(request):
    return PretrainOracle(request.param)


def test_mask_at_every_scale(oracle):
    np.testing.assert_array_equal(oracle.mask.masked.reshape(1, -1), oracle.file["mask"])
    for i, decoder in enumerate(oracle.config.decoders()):
        np.testing.assert_array_equal(oracle.mask.resized_to(decoder.target_grid), oracle.file[f"loss_mask/{i}"])


def test_latents_targets_and_predictions(oracle):
    for i in range(4):
        np.testing.assert_allclose(oracle.latents[i], oracle.file[f"latent/{i}"], atol=1e-5, rtol=0)
        # In float64 the pixel targets differ from the golden by 1.5e-6: that is the golden's own rounding.
        atol = 1e-6 if oracle.name == "swin_hog15" else 2e-6
        np.testing.assert_allclose(oracle.thinned(oracle.targets, i), oracle.file[f"target/{i}"], atol=atol, rtol=0)
        np.testing.assert_allclose(oracle.thinned(oracle.predictions, i), oracle.file[f"pred/{i}"], atol=1e-5, rtol=0)


def test_losses(oracle):
    np.testing.assert_allclose(oracle.loss, oracle.file["loss"], rtol=1e-5)
    for i, name in enumerate(scale_names(oracle.config)):
        np.testing.assert_allclose(oracle.metrics[name], oracle.file[f"loss/{i}"], rtol=1e-5)


def test_every_gradient_norm(oracle):
    expected = {k.removeprefix("grad_norm/"): v for k, v in oracle.file.items() if k.startswith("grad_norm/")}
    flat = trees.flatten(oracle.gradients)
    ours = {names.release_name(path, oracle.rules)[0]: np.linalg.norm(gradient) for path, gradient in flat.items()}
    assert ours.keys() == expected.keys()
    for name, norm in ours.items():
        np.testing.assert_allclose(norm, expected[name], rtol=1e-4, atol=1e-7, err_msg=name)


def test_dense_classification_logits():
    """The first window rule: windows shrink to the grid, and do not shift where the grid is not larger."""
    file, source = release("swin_classifier")
    config = swin_config(epsilon2=1e-5, **TINY)

    (tokens,) = encode(config, swin_names.encoder(), source, file["images"], taps=(4,))
    pooled = tokens.mean(axis=1)
    norm = nnx.LayerNorm(64, epsilon=1e-6, use_fast_variance=False, rngs=nnx.Rngs(0))
    norm.scale[...], norm.bias[...] = jnp.asarray(source["norm.weight"]), jnp.asarray(source["norm.bias"])
    logits = norm(pooled) @ source["head.weight"].T + source["head.bias"][None]
    np.testing.assert_allclose(logits, file["logits"], atol=2e-5, rtol=0)


def test_segmentation_features():
    """The second window rule: windows keep their size and shift on every grid, which is zero-padded to fit."""
    file, source = release("upernet_swin")
    config = swin_config(
        image_size=(96, 96),
        width=8,
        depths=(2, 2, 2, 2),
        num_heads=(1, 2, 2, 4),
        window_rule="pad",
        tap_after_merging=False,
        epsilon=1e-5,
    )
    graphdef, params = imported(
        lambda rngs: nnx.Dict(encoder=Swin(config, rngs=rngs)), swin_names.encoder("backbone."), source
    )
    features = jax.jit(lambda p, x: trees.merge(graphdef, p)["encoder"](x, taps=(1, 2, 3, 4)))(params, file["images"])
    for i, feature in enumerate(features):
        norm = nnx.LayerNorm(8 * 2**i, epsilon=1e-5, use_fast_variance=False, rngs=nnx.Rngs(0))
        norm.scale[...] = jnp.asarray(source[f"backbone.norm{i}.weight"])
        norm.bias[...] = jnp.asarray(source[f"backbone.norm{i}.bias"])
        feature = norm(feature).reshape(1, *config.feature_grid(i + 1), -1).transpose(0, 3, 1, 2)
        np.testing.assert_allclose(feature, file[f"feature/{i}"], atol=1e-5, rtol=0)


def pretraining(encoder, **changes):
    """A model with the paper's decoders and targets."""
    target = target_config(
        cells=tuple(encoder.image_size[0] // encoder.feature_grid(t)[0] for t in encoder.default_taps)
    )
    settings = {"taps": encoder.default_taps, "target": target, "decoder_num_heads": 4, "num_masks": 8} | changes
    return localmim_config(encoder=encoder, **settings)


@pytest.mark.parametrize(("variant", "window", "count"), [("swin_b", 7, 86_741_176), ("swin_l", 14, 195_254_484)])
def test_full_size_pretraining_step(variant, window, count):
    """A whole sparse step in bfloat16 traced; the encoder has as many parameters as the published one."""
    config = pretraining(swin_config(window=window, dtype=jnp.bfloat16, **VARIANTS[variant]))
    graphdef, params, _ = trees.split(lambda rngs: LocalMIM(config, rngs=rngs))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params["encoder"])) == count
    width = config.encoder.feature_width(4)
    with_head = {"swin_b": 87_768_224, "swin_l": 196_794_556}[variant]
    assert count + 2 * width + 1000 * width + 1000 == with_head

    def loss(params, images, key):
        return pretrain_loss(trees.merge(graphdef, params), images, draw_mask(key, config, 16))[0]

    images = jax.ShapeDtypeStruct((16, 224, 224, 3), jnp.float32)
    value, gradients = jax.eval_shape(jax.value_and_grad(loss), params, images, jax.random.key(0))
    assert (value.shape, value.dtype) == ((), jnp.float32)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), gradients) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), params
    )
    assert [decoder.width for decoder in config.decoders()] == [64, 128, 128, 128]
    assert [decoder.log2_scale for decoder in config.decoders()] == [0, 0, 0, 0]


SMALL = swin_config(
    image_size=(32, 32),
    width=8,
    depths=(2, 1),
    num_heads=(1, 2),
    window=3,
    sparse_attention=("packed", "plain"),
)


def test_shared_masks_need_no_traffic_between_devices():
    """Two masks over four devices: the loss is that of one device, and devices exchange nothing but sums."""
    config = pretraining(SMALL, decoder_width=8, num_masks=2)
    graphdef, params, _ = trees.split(lambda rngs: LocalMIM(config, rngs=rngs))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0.1, 0.3, leaf.shape), jnp.float32), params)
    images, key = jax.random.normal(jax.random.key(1), (8, 32, 32, 3)), jax.random.key(2)

    def loss(params, images, key):
        return pretrain_loss(trees.merge(graphdef, params), images, draw_mask(key, config, 8))[0]

    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
    split, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    compiled = jax.jit(loss, in_shardings=(whole, split, whole)).lower(params, images, key).compile()
    assert set(re.findall(r" (all-[a-z-]+|collective-[a-z-]+|reduce-scatter)\(", compiled.as_text())) == {"all-reduce"}
    several = compiled(*jax.device_put((params, images, key), (whole, split, whole)))
    np.testing.assert_allclose(several, jax.jit(loss)(params, images, key), rtol=1e-6)


def test_the_lowered_encoder_reads_by_names():
    graphdef, params, _ = trees.split(SMALL.make)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    encode = jax.jit(lambda params, images: trees.merge(graphdef, params)(images, taps=(2,)))
    text = encode.lower(params, images).as_text(debug_info=True)
    scopes = ("patch_embed", "stage_1/block_02/attention", "stage_1/merging", "stage_2/block_01/mlp")
    assert [scope for scope in scopes if f"/encoder/{scope}/" not in text] == []


def test_the_two_inputs_that_the_release_swaps():
    """Patch merging reads (0, 0), (1, 0), (0, 1), (1, 1) in (row, column); an odd grid is padded with zeros."""
    merging = PatchMerging(1, 1e-6, dtype=jnp.float32, rngs=nnx.Rngs(0))
    merging.norm = lambda x: x
    x = jnp.arange(15, dtype=jnp.float32).reshape(1, 3, 5, 1)  # 0 1 2 3 4 / 5 6 7 8 9 / 10 ...
    halves = []
    for half in (slice(2), slice(2, 4)):  # the result has half of the four channels that are joined
        merging.reduction = lambda x, half=half: x[..., half]
        halves.append(merging(x))
    merged = jnp.concatenate(halves, axis=-1)
    assert merged.shape == (1, 2, 3, 4)
    np.testing.assert_array_equal(merged[0, 0, 1], [2, 7, 3, 8])
    np.testing.assert_array_equal(merged[0, 1, 2], [14, 0, 0, 0])


@pytest.mark.parametrize("rule", ["shrink", "pad"])
def test_any_image_size_when_dense(rule):
    """Sides that neither patches, windows nor merging divide; the feature grid is announced."""
    config = dataclasses.replace(SMALL, window_rule=rule)
    graphdef, params, _ = trees.split(lambda rngs: Swin(config, rngs=rngs))
    images = jax.ShapeDtypeStruct((2, 37, 50, 3), jnp.float32)
    (feature,) = jax.eval_shape(lambda p, x: trees.merge(graphdef, p)(x, taps=(2,)), params, images)
    assert config.feature_grid(2, (37, 50)) == (5, 7)
    assert feature.shape == (2, 35, 16)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": (36, 32)}, "not a multiple of the 8 px"),
        ({"image_size": (32, 30)}, "not a multiple of the 8 px"),
        ({"num_heads": (3, 2)}, "stage 1's width 8: [1, 2, 4, 8] do"),
        ({"num_heads": (1,)}, "one value for each of the 2 stages"),
        ({"sparse_attention": ("packed",)}, "one value for each of the 2 stages"),
        ({"sparse_attention": ("packed", "fast")}, "'packed' or 'plain'"),
        ({"window_rule": "grow"}, "choose 'shrink' or 'pad'"),
        ({"window": 1}, "at least 2"),
        ({"depths": ()}, "at least one stage"),
    ],
)
def test_impossible_models_are_refused(changes, message):
    with pytest.raises(ConfigError) as error:
        pretraining(dataclasses.replace(SMALL, **changes))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
