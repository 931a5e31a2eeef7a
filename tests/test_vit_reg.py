"""A ViT with registers in every task: its prefix of five tokens is nobody's patch."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from localmim_jax import params as trees
from localmim_jax.configs import parts
from localmim_jax.convert import files, huggingface
from localmim_jax.convert.export import export, only_encoder
from localmim_jax.convert.load import check, transfer
from localmim_jax.convert.recognize import recognize
from localmim_jax.convert.weights import Weights, info_to_json
from localmim_jax.detection import task as detection
from localmim_jax.engine.optim import make_optimizer
from localmim_jax.errors import ConfigError
from localmim_jax.method.localmim import draw_mask, pretrain_loss
from localmim_jax.method.masking import random_mask
from localmim_jax.models.pyramid import PyramidBackbone
from localmim_jax.models.vit_reg import ViTReg
from localmim_jax.segmentation import task as segmentation
from localmim_jax.tasks import from_config, initialize
from tests import torchvision
from tests.defaults import classifier_config, encoder_config, localmim_config, optimizer_settings, target_config
from tests.shrink import shrink
from tests.training import train

TINY = encoder_config("vit_reg_b", image_size=(16, 24), patch_size=8, width=16, depth=4, num_heads=2)
PRETRAIN = localmim_config(
    encoder=TINY, taps=(2, 4), target=target_config(cells=(4, 8)), decoder_width=16, mask_ratio=0.5
)
IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(2, 16, 24, 3)), jnp.float32)


def drawn(config):
    """(graph definition, parameters, the same as weights), every array drawn like a trained one."""
    graphdef, abstract, _ = trees.split(config.make)
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        return np.float32(rng.normal(size=leaf.shape) * 0.2 + path.endswith("scale"))

    params = trees.map_with_path(draw, abstract)
    return graphdef, params, Weights(trees.flatten(params), config.describe(), "here")


@pytest.mark.parametrize(("variant", "millions"), [("vit_reg_s", 21.7), ("vit_reg_b", 85.8)])
def test_variants_are_vits_with_positions_and_four_registers(variant, millions):
    config = encoder_config(variant)
    _, params, _ = trees.split(config.make)
    assert params["register_tokens"].shape == (4, config.width)
    assert params["position_embedding"].shape == (14 * 14, config.width)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6 == pytest.approx(millions, abs=0.1)


def test_features_begin_with_class_token_and_registers():
    model = ViTReg(TINY, rngs=nnx.Rngs(0))
    first, last = model(IMAGES, taps=(1, 4))
    assert first.shape == last.shape == (2, 5 + 6, 16)
    changed = model.register_tokens[...].at[3].add(1.0)
    model.register_tokens[...] = changed
    assert np.abs(model(IMAGES, taps=(4,))[0] - last).max() > 1e-3  # every patch attends to them


def test_the_prefix_has_no_position():
    model = ViTReg(TINY, rngs=nnx.Rngs(0))
    embedded = model._embed(IMAGES, None)
    np.testing.assert_array_equal(embedded[0, 0], model.class_token[...])
    np.testing.assert_array_equal(embedded[0, 1:5], model.register_tokens[...])


def test_a_mask_that_hides_nothing_is_no_mask():
    model = ViTReg(TINY, rngs=nnx.Rngs(0))
    order = jnp.asarray([[3, 1, 5, 0, 2, 4]], jnp.int32)
    mask = random_mask(jax.random.key(1), 1, TINY.grid, 0.5)
    mask = type(mask)(keep=order, restore=jnp.argsort(order), masked=jnp.zeros((1, 2, 3)))
    for a, b in zip(model(IMAGES, taps=(1, 4)), model(IMAGES, mask, taps=(1, 4)), strict=True):
        np.testing.assert_allclose(a[:, 5:][:, order[0]], b[:, 5:], atol=1e-5)
        np.testing.assert_allclose(a[:, :5], b[:, :5], atol=1e-5)


def test_masked_patches_do_not_matter():
    model = ViTReg(TINY, rngs=nnx.Rngs(0))
    mask = random_mask(jax.random.key(1), 2, TINY.grid, 0.5)
    hidden = jnp.repeat(jnp.repeat(mask.masked, 8, axis=1), 8, axis=2)[..., None]
    (one,) = model(IMAGES, mask, taps=(4,))
    (other,) = model(jnp.where(hidden == 1, 99.0, IMAGES), mask, taps=(4,))
    np.testing.assert_array_equal(one, other)
    assert one.shape == (2, 5 + 3, 16)


def test_attention_maps_name_the_patches_only():
    weights, group, coordinates = ViTReg(TINY, rngs=nnx.Rngs(0)).attention(IMAGES, lambda *found: found)[0]
    assert weights.shape == (2, 1, 2, 11, 11)
    np.testing.assert_array_equal(group[0], [-1] * 5 + [0] * 6)
    np.testing.assert_array_equal(coordinates[0, :5], -1)


def test_a_pretraining_step_reaches_every_parameter():
    graphdef, params, _ = drawn(PRETRAIN)
    mask = draw_mask(jax.random.key(0), PRETRAIN, 2)

    @jax.jit
    def gradient(params):
        return jax.value_and_grad(lambda p: pretrain_loss(trees.merge(graphdef, p), IMAGES, mask)[0])(params)

    loss, gradients = gradient(params)
    assert np.isfinite(loss)
    for path, leaf in trees.flatten(gradients).items():
        assert np.isfinite(leaf).all(), path
        assert np.any(leaf), path


@pytest.mark.parametrize("pool", ["mean", "class"])
def test_a_classifier_pools_patches_or_takes_the_class_token(pool):
    config = classifier_config(TINY.for_classification(), num_classes=3, pool=pool)
    model = config.make(nnx.Rngs(0))
    (tokens,) = model.encoder(IMAGES, taps=(4,))
    pooled = tokens[:, 5:].mean(axis=1) if pool == "mean" else tokens[:, 0]
    np.testing.assert_allclose(model.features(IMAGES), model.norm(pooled), atol=1e-5)
    assert model(IMAGES).shape == (2, 3)


def test_the_pyramid_drops_the_prefix():
    def maps(images):
        return PyramidBackbone(TINY.for_dense(), (1, 2, 3, 4), rngs=nnx.Rngs(0)).feature_maps(images)

    found = jax.eval_shape(maps, jax.ShapeDtypeStruct((2, 16, 24, 3), np.float32))
    assert [x.shape for x in found] == [(2, *grid, 16) for grid in ((8, 12), (4, 6), (2, 3), (1, 1))]


def test_layers():
    assert [TINY.layer_of(f"encoder/{path}") for path in ("register_tokens", "class_token", "position_embedding")] == [
        0
    ] * 3
    assert [TINY.layer_of(f"encoder/blocks/{i}/mlp/fc1/kernel") for i in range(4)] == [1, 2, 3, 4]
    assert TINY.layer_of("head/kernel") == 5


def recipes(task):
    """A recipe for a ViT, with the variant changed and nothing else that a ViT has."""
    vit = parts.vit("vit_b")
    config = shrink(parts.pretrain(vit) if task == "pretrain" else getattr(parts, task)(vit))
    config.model.variant = "vit_reg_b"
    if task == "segment":
        config.model.relative_and_scale = False
    if task in ("segment", "detect"):
        config.image_size = (64, 64)
        config.model.depth = 8
    return config


CONFIGS = {
    "pretrain": from_config.localmim_config,
    "finetune": from_config.classifier_config,
    "segment": segmentation.model_config,
    "detect": detection.model_config,
}


@pytest.mark.parametrize("task", CONFIGS)
def test_every_task_takes_it_and_weight_decay_covers_every_parameter_once(task):
    model = CONFIGS[task](recipes(task))
    assert (model.describe().family, model.encoder.num_registers) == ("vit_reg", 4)
    _, params, _ = trees.split(model.make)
    paths = trees.flatten(params)
    optimizer = make_optimizer(
        optimizer_settings(), paths, model.encoder.weight_decay[task]
    )  # raises unless exactly one
    assert optimizer.decayed["encoder/register_tokens"] == (task == "pretrain")
    assert not optimizer.decayed["encoder/position_embedding"]
    assert optimizer.decayed["encoder/patch_embed/kernel"]


@pytest.mark.slow
def test_a_run_trains_and_its_encoder_fills_a_classifier(tmp_path):
    train(recipes("pretrain"), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 3
    assert np.isfinite(losses).all()
    model = from_config.classifier_config(recipes("finetune"))
    weights = initialize.read(str(tmp_path))
    assert weights.info.family == "vit_reg"
    params, state = trees.initialize(model.make, jax.random.key(0))
    filled, _, report = initialize.load_into(weights, params, state, model)
    check(report)
    tokens = trees.flatten(filled)["encoder/register_tokens"]
    np.testing.assert_array_equal(tokens, weights.arrays["encoder/register_tokens"])


def test_the_relative_position_bias_of_segmentation_is_refused():
    config = recipes("segment")
    config.model.relative_and_scale = True
    with pytest.raises(ConfigError, match=r"set model\.relative_and_scale=False"):
        segmentation.model_config(config)


@pytest.mark.parametrize(
    ("changes", "message"), [({"num_registers": 0}, "at least 1"), ({"position": "fixed"}, "learns its positions")]
)
def test_impossible_configurations(changes, message):
    with pytest.raises(ConfigError, match=message):
        encoder_config("vit_reg_b", **changes)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("described", [True, False])
def test_our_files_come_back(tmp_path, suffix, described):
    _, _, weights = drawn(PRETRAIN)
    arrays, info = export(weights, "localmim")
    files.write(tmp_path / f"x{suffix}", arrays, info_to_json(info))
    found, extra = files.read(tmp_path / f"x{suffix}")
    again = recognize(found, extra if described else {}, "x")
    assert again.info == info if described else (again.info.family, again.info.kind) == ("vit_reg", "pretrain")
    assert again.unexpected == {}
    assert again.arrays.keys() == arrays.keys()
    for path, array in arrays.items():
        np.testing.assert_array_equal(again.arrays[path], array)


@pytest.mark.parametrize("pool", ["mean", "class"])
def test_timms_names_and_back(pool):
    encoder = dataclasses.replace(TINY, image_size=(24, 24))  # a file of timm tells square images only
    _, _, weights = drawn(classifier_config(encoder, num_classes=3, pool=pool))
    exported, _ = export(weights, "timm")
    assert exported["reg_token"].shape == (1, 4, 16)
    assert exported["pos_embed"].shape == (1, 9, 16)
    again = recognize(exported, {}, "timm")
    assert again.info == dataclasses.replace(weights.info, num_heads=None, epsilon=None)
    assert again.unexpected == {}
    for path, array in weights.arrays.items():
        np.testing.assert_array_equal(again.arrays[path], array)


def test_a_vit_is_still_taken_for_a_vit():
    vit = classifier_config(num_classes=3)
    paths = {path: np.zeros(leaf.shape, np.float32) for path, leaf in trees.flatten(trees.split(vit.make)[1]).items()}
    assert recognize(paths, {}, "ours").info.family == "vit"
    exported, _ = export(Weights(paths, vit.describe(), "here"), "timm")
    assert recognize(exported, {}, "timm").info.family == "vit"


def test_neither_the_release_nor_transformers_has_registers():
    encoder = only_encoder(drawn(PRETRAIN)[2])
    with pytest.raises(ConfigError, match="the release has no such backbone"):
        export(encoder, "release")
    with pytest.raises(ConfigError, match="Transformers has no such backbone"):
        huggingface.export(encoder)


def test_the_encoder_transfers_and_its_positions_are_resized():
    _, _, weights = drawn(PRETRAIN)
    larger = classifier_config(dataclasses.replace(TINY, image_size=(32, 48)), num_classes=3)
    _, own, _ = drawn(larger)
    params, report = transfer(weights, own, larger.describe())
    check(report)
    resized = [row for row in report.rows if row.status == "resized"]
    assert [row.path for row in resized] == ["encoder/position_embedding"]
    flat = trees.flatten(params)
    assert flat["encoder/position_embedding"].shape == (24, 16)
    np.testing.assert_array_equal(flat["encoder/register_tokens"], weights.arrays["encoder/register_tokens"])


@pytest.mark.torch
@pytest.mark.parametrize(("pool", "global_pool"), [("mean", "avg"), ("class", "token")])
def test_timms_vit_with_registers_gives_the_same_logits(pool, global_pool):
    import torch

    torchvision.declare_operators()
    from timm import models as timm

    encoder = encoder_config("vit_reg_b", image_size=(64, 64), width=64, depth=4, num_heads=4)
    graphdef, params, weights = drawn(classifier_config(encoder, num_classes=10, pool=pool))
    theirs = timm.vision_transformer.VisionTransformer(
        img_size=64, embed_dim=64, depth=4, num_heads=4, num_classes=10, global_pool=global_pool, reg_tokens=4,
        no_embed_class=True,
    )  # fmt: skip
    state = {name: torch.from_numpy(array) for name, array in export(weights, "timm")[0].items()}
    theirs.load_state_dict(state, strict=True)
    images = np.random.default_rng(2).normal(size=(2, 64, 64, 3)).astype(np.float32)
    with torch.no_grad():
        expected = theirs.eval()(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    found = jax.jit(lambda params, images: trees.merge(graphdef, params)(images))(params, images)
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(found, expected, atol=1e-4)
