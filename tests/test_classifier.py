import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from localmim_jax import params as trees
from localmim_jax.convert import names, swin_names, vit_names
from localmim_jax.errors import ConfigError
from localmim_jax.models.classifier import Classifier
from tests.defaults import classifier_config, swin_config, vit_config

TINY = vit_config(image_size=(16, 24), patch_size=8, width=16, depth=2, num_heads=2, position="learned")


def make(**changes):
    return Classifier(classifier_config(**({"encoder": TINY, "num_classes": 7} | changes)), rngs=nnx.Rngs(0))


def check_logits(file, config, rules):
    """Compares the logits with the golden's; returns the golden's parameters under our paths."""
    graphdef, abstract, model_state = trees.split(lambda rngs: Classifier(config, rngs=rngs))
    source = {name[len("param/") :]: array for name, array in file.items() if name.startswith("param/")}
    arrays = names.import_arrays(source, trees.flatten(abstract), rules)
    assert len(arrays) == len(source)
    params = trees.unflatten({path: jnp.asarray(array) for path, array in arrays.items()})
    logits = jax.jit(lambda images: trees.merge(graphdef, params, model_state)(images))(file["images"])
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, file["logits"], atol=2e-5, rtol=0)
    return arrays


def test_vit_logits_equal_the_release(goldens):
    file = dict(np.load(goldens / "vit_classifier.npz"))
    encoder = vit_config(image_size=(64, 64), width=32, depth=8, num_heads=4, position="learned")
    arrays = check_logits(file, classifier_config(encoder=encoder, num_classes=10), vit_names.CLASSIFIER)
    # The oracle's positions have been trained: sine-cosine ones would not pass.
    assert np.abs(arrays["encoder/position_embedding"] - encoder.position_table()).max() > 1e-3


def test_swin_logits_equal_the_release(goldens):
    file = dict(np.load(goldens / "swin_classifier.npz"))
    encoder = swin_config(width=8, depths=(2, 2, 4, 2), num_heads=(1, 2, 4, 8), epsilon2=1e-5)
    check_logits(file, classifier_config(encoder=encoder, num_classes=10), (*swin_names.encoder(), *swin_names.HEAD))


def test_learned_positions_start_from_the_fixed_ones():
    images = jax.random.normal(jax.random.key(1), (2, 16, 24, 3))
    learned = make()
    fixed = make(encoder=vit_config(**{**vars(TINY), "position": "fixed"}))
    assert learned.encoder.position_embedding.shape == (1 + 2 * 3, 16)
    np.testing.assert_array_equal(learned.features(images), fixed.features(images))
    learned.encoder.position_embedding[...] = learned.encoder.position_embedding[...].at[0, ::2].add(1.0)
    assert not np.allclose(learned.features(images), fixed.features(images))


def test_pooling_and_the_order_of_the_norm():
    images = jax.random.normal(jax.random.key(1), (2, 16, 24, 3))
    model = make()
    (tokens,) = model.encoder(images, taps=(2,))
    norm = model.norm
    expected = {
        ("mean", "pool_norm"): norm(tokens[:, 1:].mean(axis=1)),
        ("mean", "norm_pool"): norm(tokens[:, 1:]).mean(axis=1),
        ("class", "pool_norm"): norm(tokens[:, 0]),
    }
    for (pool, order), feature in expected.items():
        found = make(pool=pool, head_order=order).features(images)
        np.testing.assert_allclose(found, feature, atol=1e-6)
    assert not np.allclose(expected["mean", "pool_norm"], expected["mean", "norm_pool"], atol=1e-3)


def test_the_head_starts_near_zero():
    kernel = np.asarray(make(num_classes=4000).head.kernel[...])
    assert kernel.std() == pytest.approx(2e-5, rel=0.02)
    assert not make().head.bias[...].any()
    assert np.asarray(make(num_classes=4000, head_std=0.02).head.kernel[...]).std() == pytest.approx(0.02, rel=0.02)


def test_batch_norm_standardises_with_the_batch_and_remembers_it():
    model = make(batch_norm=True, head_std=1.0)
    images = 3 * jax.random.normal(jax.random.key(1), (8, 16, 24, 3))
    feature = np.asarray(model.features(images), np.float64)
    mean, variance = feature.mean(axis=0), feature.var(axis=0)
    logits = model(images, jax.random.key(0))
    expected = (feature - mean) / np.sqrt(variance + 1e-6) @ np.asarray(model.head.kernel[...])
    np.testing.assert_allclose(logits, expected, atol=1e-3)
    state = trees.flatten(trees.model_state_of(model))
    assert set(state) == {"batch_norm/mean", "batch_norm/var"}
    np.testing.assert_allclose(state["batch_norm/mean"], 0.1 * mean, atol=1e-6)
    np.testing.assert_allclose(state["batch_norm/var"], 0.9 + 0.1 * variance, atol=1e-6)
    running = (feature - 0.1 * mean) / np.sqrt(0.9 + 0.1 * variance + 1e-6) @ np.asarray(model.head.kernel[...])
    np.testing.assert_allclose(model(images), running, atol=1e-3)
    assert not any("batch_norm" in path for path in trees.flatten(trees.split(lambda rngs: model)[1]))


def test_a_probe_does_not_depend_on_the_scale_and_bias_of_its_norm():
    """Why a frozen, new layer norm serves a linear probe: the batch norm cancels them, in either order."""
    images = jax.random.normal(jax.random.key(1), (8, 16, 24, 3))
    for order in ("pool_norm", "norm_pool"):
        model = make(batch_norm=True, head_std=1.0, head_order=order)
        plain = model(images, jax.random.key(0))
        model.norm.scale[...] = jnp.linspace(0.5, 3.0, 16)
        model.norm.bias[...] = jnp.linspace(-1.0, 2.0, 16)
        np.testing.assert_allclose(model(images, jax.random.key(0)), plain, atol=2e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 1}, "at least 2"),
        ({"pool": "max"}, "choose 'mean' or 'class'"),
        ({"head_order": "norm"}, "choose 'pool_norm' or 'norm_pool'"),
        ({"head_std": 0.0}, "above 0"),
    ],
)
def test_impossible_classifiers_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        classifier_config(**changes)
