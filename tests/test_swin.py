"""Swin against the authors' release, and its promises that the release does not keep."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from localmim_jax import params as trees
from localmim_jax.backbones.swin import Swin, SwinConfig
from localmim_jax.convert import names
from localmim_jax.localmim import LocalMIM, LocalMIMConfig, pretrain_loss, scale_names
from localmim_jax.masking import mask_from_noise
from localmim_jax.targets import TargetConfig, make_targets
from tests.oracle import GOLDENS

TINY = {"width": 8, "depths": (2, 2, 4, 2), "num_heads": (1, 2, 4, 8)}
ORACLES = {
    "swin_hog15": (TargetConfig(kind="hog", bins=15, cells=(8, 16, 32, 32)), ("packed", "plain", "plain", "plain")),
    "swin_pixel": (TargetConfig(kind="pixels", cells=(8, 16, 32, 32)), ("plain", "packed", "plain", "packed")),
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


class Recorded:
    """A model that keeps what `pretrain_loss` sees pass by."""

    def __init__(self, model):
        self.model, self.config, self.decoders = model, model.config, model.decoders

    def predict(self, images, mask):
        features = self.model.encoder(images, mask=mask, taps=self.config.taps)
        self.latents = [decoder.norm(f) for decoder, f in zip(self.decoders, features, strict=True)]
        self.model.encoder = lambda *args, **kwargs: features
        self.predictions = self.model.predict(images, mask)
        return self.predictions


class PretrainOracle:
    """A pre-training golden and everything our model makes of its inputs, in one compilation."""

    def __init__(self, name):
        target, forms = ORACLES[name]
        self.name = name
        self.file, source = release(name)
        self.config = LocalMIMConfig(
            encoder=SwinConfig(sparse_attention=forms, **TINY),
            taps=(1, 2, 3, 4),
            target=target,
            decoder_width=(8, 16, 16, 16),
            decoder_num_heads=2,
            num_masks=1,
        )
        self.rules = (*names.swin_encoder("encoder."), *(rule for i in range(4) for rule in names.swin_decoder(i)))
        graphdef, params = imported(lambda rngs: LocalMIM(self.config, rngs=rngs), self.rules, source)
        images = jnp.asarray(self.file["images"])
        units = self.file["mask"]
        self.mask = mask_from_noise(jnp.asarray(units + np.arange(49) / 100), (7, 7), int((units == 0).sum()))

        @jax.jit
        @functools.partial(jax.value_and_grad, has_aux=True)
        def loss(params):
            model = Recorded(trees.merge(graphdef, params))
            value, metrics = pretrain_loss(model, images, self.mask)
            return value, (metrics, model.latents, model.predictions, make_targets(images, target))

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
    np.testing.assert_array_equal(oracle.mask.dense.reshape(1, -1), oracle.file["mask"])
    for i, decoder in enumerate(oracle.config.decoders()):
        np.testing.assert_array_equal(oracle.mask.at(decoder.target_grid), oracle.file[f"loss_mask/{i}"])


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
    config = SwinConfig(epsilon2=1e-5, **TINY)

    (tokens,) = encode(config, names.swin_encoder(), source, file["images"], taps=(4,))
    pooled = tokens.mean(axis=1)
    norm = nnx.LayerNorm(64, epsilon=1e-6, use_fast_variance=False, rngs=nnx.Rngs(0))
    norm.scale[...], norm.bias[...] = jnp.asarray(source["norm.weight"]), jnp.asarray(source["norm.bias"])
    logits = norm(pooled) @ source["head.weight"].T + source["head.bias"][None]
    np.testing.assert_allclose(logits, file["logits"], atol=2e-5, rtol=0)


def test_segmentation_features():
    """The second window rule: windows keep their size and shift on every grid, which is zero-padded to fit."""
    file, source = release("upernet_swin")
    config = SwinConfig(
        image_size=(96, 96),
        width=8,
        depths=(2, 2, 2, 2),
        num_heads=(1, 2, 2, 4),
        window_rule="pad",
        tap_after_merging=False,
        epsilon=1e-5,
    )
    graphdef, params = imported(
        lambda rngs: nnx.Dict(encoder=Swin(config, rngs=rngs)), names.swin_encoder("backbone."), source
    )
    features = jax.jit(lambda p, x: trees.merge(graphdef, p)["encoder"](x, taps=(1, 2, 3, 4)))(params, file["images"])
    for i, feature in enumerate(features):
        norm = nnx.LayerNorm(8 * 2**i, epsilon=1e-5, use_fast_variance=False, rngs=nnx.Rngs(0))
        norm.scale[...] = jnp.asarray(source[f"backbone.norm{i}.weight"])
        norm.bias[...] = jnp.asarray(source[f"backbone.norm{i}.bias"])
        feature = norm(feature).reshape(1, *config.feature_grid(i + 1), -1).transpose(0, 3, 1, 2)
        np.testing.assert_allclose(feature, file[f"feature/{i}"], atol=1e-5, rtol=0)
