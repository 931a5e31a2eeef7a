"""Files under anybody's names -> our paths -> their names again, bit for bit."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from localmim_jax.convert import files
from localmim_jax.convert.export import export, only_encoder
from localmim_jax.convert.recognize import recognize
from localmim_jax.convert.swin_names import swap_merging_order
from localmim_jax.convert.weights import info_from_json, info_to_json
from localmim_jax.errors import ConfigError, DataError
from localmim_jax.models.info import ModelInfo
from localmim_jax.models.windows import DenseWindows

STAGES = (1, 2, 3, 4)
EXPECTED = {
    "vit_hog9": ModelInfo("vit", "pretrain", (64, 64), taps=(2, 4, 6, 8), target="hog", log2_scale=(2, 1, 0, -1)),
    "vit_classifier": ModelInfo("vit", "classifier", (64, 64), pool="mean", head_order="pool_norm"),
    "swin_hog15": ModelInfo("swin", "pretrain", (224, 224), (1, 2, 4, 8), STAGES, "hog", log2_scale=(0, 0, 0, 0)),
    "swin_pixel": ModelInfo("swin", "pretrain", (224, 224), (1, 2, 4, 8), STAGES, "pixels", log2_scale=(0, 0, 0, 0)),
    "swin_classifier": ModelInfo("swin", "classifier", None, (1, 2, 4, 8), pool="mean", head_order="pool_norm"),
}


def source(goldens, name):
    arrays, _ = files.read(goldens / f"{name}.npz")
    return arrays


def assert_same(found, expected):
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize("name", [*EXPECTED, "vit_hog18_bias"])
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_release_to_ours_to_release_is_exact(goldens, tmp_path, name, suffix):
    original = source(goldens, name)
    weights = recognize(original, {}, name)
    assert weights.unexpected == {}
    if name in EXPECTED:
        assert weights.info == EXPECTED[name]
    arrays, info = export(weights, "localmim")
    files.write(tmp_path / f"ours{suffix}", arrays, info_to_json(info))
    again = recognize(*files.read(tmp_path / f"ours{suffix}"), "ours")
    assert again.info == weights.info
    released, info = export(again, "release")
    files.write(tmp_path / f"theirs{suffix}", released, info_to_json(info))
    released, extra = files.read(tmp_path / f"theirs{suffix}")
    assert info == info_from_json(extra["info"], "theirs")
    extra_buffers = {key for key in released if key.endswith(("relative_position_index", "attn_mask"))}
    assert not extra_buffers or name == "swin_classifier"
    assert_same({key: value for key, value in released.items() if key not in extra_buffers}, original)


def test_the_frozen_gradient_biases_are_kept(goldens):
    original = source(goldens, "vit_hog18_bias")
    bias = recognize(original, {}, "x").info.hog_bias
    np.testing.assert_array_equal(np.float32(bias), [original[f"hog_enc.{k}.conv.bias"] for k in range(4)])


def test_merging_layers_of_the_releases_pretraining_are_permuted(goldens):
    """Whatever is joined in the release's order and multiplied by its matrix is the same in ours."""
    original = source(goldens, "swin_hog15")
    permuted = recognize(original, {}, "x").arrays
    standard = recognize(original, {}, "x", standard_merging=True).arrays
    merging = "encoder/stages/1/merging"
    width = len(standard[f"{merging}/norm/scale"]) // 4
    neighbors = np.random.default_rng(0).normal(size=(2, 2, width))  # (row, column)
    their_order = neighbors[[0, 0, 1, 1], [0, 1, 0, 1]].reshape(-1)
    our_order = neighbors[[0, 1, 0, 1], [0, 0, 1, 1]].reshape(-1)
    name = "encoder.layers.1.downsample"
    theirs = original[f"{name}.reduction.weight"] @ (their_order * original[f"{name}.norm.weight"])
    ours = (our_order * permuted[f"{merging}/norm/scale"]) @ permuted[f"{merging}/reduction/kernel"]
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    np.testing.assert_array_equal(standard[f"{merging}/reduction/kernel"], original[f"{name}.reduction.weight"].T)
    changed = {path for path in standard if not np.array_equal(standard[path], permuted[path])}
    assert all("/merging/" in path for path in changed)
    assert f"{merging}/norm/bias" in changed
    assert_same(swap_merging_order(permuted), standard)


def test_fine_tuned_swins_are_not_permuted(goldens):
    original = source(goldens, "swin_classifier")
    kernel = recognize(original, {}, "x").arrays["encoder/stages/0/merging/reduction/kernel"]
    np.testing.assert_array_equal(kernel, original["layers.0.downsample.reduction.weight"].T)


def test_mae_pretraining(goldens):
    """Encoder and final norm under the release's names; the rest is MAE's decoder."""
    original = source(goldens, "vit_classifier")
    encoder = {key: value for key, value in original.items() if not key.startswith(("head", "fc_norm"))}
    decoder = {"mask_token": np.zeros((1, 1, 16)), "decoder_blocks.0.norm1.weight": np.ones(16, np.float32)}
    norm = {"norm.weight": np.ones(32, np.float32), "norm.bias": np.zeros(32, np.float32)}
    weights = recognize(encoder | decoder | norm, {}, "mae")
    assert weights.info == ModelInfo("vit", "encoder", (64, 64))
    assert weights.unexpected == {}
    assert set(weights.ignored) == set(decoder)
    assert len(weights.arrays) == len(encoder) + len(norm)


def test_timm_vit_with_a_class_token_head(goldens):
    original = {key.replace("fc_norm", "norm"): value for key, value in source(goldens, "vit_classifier").items()}
    weights = recognize(original, {}, "timm")
    assert weights.info == ModelInfo("vit", "classifier", (64, 64), pool="class", head_order="pool_norm")
    exported, _ = export(weights, "timm")
    assert_same(exported, original)


def test_timm_swin_and_back(goldens):
    classifier = recognize(source(goldens, "swin_classifier"), {}, "swin")
    with pytest.raises(ConfigError, match="pools before the norm"):
        export(classifier, "timm")
    info = ModelInfo("swin", "classifier", (224, 224), (1, 2, 4, 8), pool="mean", head_order="norm_pool")
    exported, _ = export(recognize(classifier.arrays, {"info": info_to_json(info)}, "ours"), "timm")
    assert {"layers.1.downsample.reduction.weight", "layers.3.downsample.norm.bias", "head.fc.weight"} <= set(exported)
    assert "layers.0.downsample.reduction.weight" not in exported
    weights = recognize(exported, {}, "timm")
    assert (weights.info.head_order, weights.unexpected) == ("norm_pool", {})
    assert_same(weights.arrays, classifier.arrays)
    with pytest.raises(ConfigError, match="norm before the pooling"):
        export(weights, "release")
    encoder, info = export(only_encoder(classifier), "timm")
    assert info.kind == "encoder"
    plain = {"norm.weight": np.ones(64, np.float32), "norm.bias": np.zeros(64, np.float32)}
    without_head = {key: value for key, value in exported.items() if not key.startswith("head.")}
    assert_same(encoder, without_head | plain)


def test_timm_names_of_a_pretraining_model_carry_its_last_norm(goldens):
    original = source(goldens, "vit_hog9")
    exported, info = export(recognize(original, {}, "x"), "timm")
    assert info.kind == "encoder"
    np.testing.assert_array_equal(exported["norm.weight"], original["norm.3.weight"])
    assert not any(key.startswith("decoder") for key in exported)


def test_the_norm_of_another_layer_is_no_final_norm(goldens):
    weights = recognize(source(goldens, "vit_hog9"), {}, "x")
    weights = dataclasses.replace(weights, info=dataclasses.replace(weights.info, taps=(2, 4, 6, 7)))
    assert (export(weights, "timm")[0]["norm.weight"] == 1).all()


def test_what_a_loader_of_the_release_expects_of_a_swin(goldens):
    """Relative position indices and shifted windows' masks, against the layout our Swin computes with."""
    weights = recognize(source(goldens, "swin_classifier"), {"args": {"input_size": 224}}, "swin")
    assert weights.info.image_size == (224, 224)
    exported, _ = export(weights, "release")
    masks = {key: value for key, value in exported.items() if key.endswith("attn_mask")}
    assert set(masks) == {f"layers.{s}.blocks.{j}.attn_mask" for s, j in [(0, 1), (1, 1), (2, 1), (2, 3)]}
    bias = DenseWindows((28, 28), 7, 3).bias(jnp.zeros((169, 1)))
    forbidden = np.asarray(bias).reshape(16, 49, 49) < -1e9
    np.testing.assert_array_equal(masks["layers.1.blocks.1.attn_mask"] == -100, forbidden)
    again = recognize(exported, {}, "again")
    assert again.info == weights.info  # the image size now comes from the masks
    assert again.unexpected == {}
    assert set(again.ignored) == set(exported) - set(source(goldens, "swin_classifier"))


def test_names_inside_a_data_parallel_wrapper(goldens):
    original = source(goldens, "vit_classifier")
    wrapped = recognize({f"module.{key}": value for key, value in original.items()}, {}, "x")
    assert_same(export(wrapped, "release")[0], original)


def test_other_precisions_become_float32(goldens):
    original = source(goldens, "vit_classifier")
    weights = recognize({key: value.astype(np.float16) for key, value in original.items()}, {}, "x")
    assert {array.dtype for array in weights.arrays.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(weights.arrays["head/bias"], original["head.bias"].astype(np.float16))


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("hog_enc.1.conv.weight", lambda array: -array, "other than the fixed gradient filters"),
        ("decoder.2.pos_embed", lambda array: array[:, :, ::-1], "other than the fixed sine-cosine positions"),
        ("blocks.0.mlp.fc1.weight", lambda array: array * np.nan, "not finite"),
        ("blocks.0.mlp.fc1.weight", lambda array: array.astype(np.int32), "of type int32"),
        ("patch_embed.proj.weight", lambda array: array[0], "4 axes are expected"),
        ("cls_token", lambda array: array[0, 0], "3 axes are expected"),
    ],
)
def test_arrays_that_cannot_be_used_are_named(goldens, name, change, reason):
    original = source(goldens, "vit_hog9")
    weights = recognize(original | {name: change(original[name])}, {}, "x")
    (found,) = weights.unexpected.values()
    assert reason in found
    with pytest.raises(ConfigError, match="1 of its arrays"):
        export(weights, "release")


def test_unknown_names_are_unexpected(goldens):
    original = source(goldens, "vit_classifier")
    weights = recognize(original | {"blocks.0.ls1.gamma": np.ones(32, np.float32)}, {}, "x")
    assert list(weights.unexpected) == ["blocks.0.ls1.gamma"]


@pytest.mark.parametrize(
    "arrays",
    [
        {"conv1.weight": np.zeros((64, 3, 7, 7)), "layer1.0.conv1.weight": np.zeros((64, 64, 3, 3))},
        {"cls_token": np.zeros((1, 1, 8))},
    ],
)
def test_another_model_is_refused(arrays):
    with pytest.raises(DataError, match=f"neither a ViT nor a Swin.*{next(iter(arrays))}"):
        recognize(arrays, {}, "x.pth")


def test_an_export_without_a_name_is_refused(goldens):
    weights = recognize(source(goldens, "vit_classifier"), {}, "x")
    weights.arrays["batch_norm/mean"] = np.zeros(3, np.float32)
    with pytest.raises(
        ConfigError,
        match=r"has no name for batch_norm/mean.*; export the encoder alone \(--part=encoder\), or with --names=local",
    ):
        export(weights, "release")


@pytest.mark.parametrize(
    "text", ["{", "[]", "3", json.dumps({"family": "vit"}), json.dumps({"family": "x", "kind": "y"})]
)
@pytest.mark.parametrize("key", [None, "octaves"])
def test_a_damaged_description_is_refused(text, key):
    if key is not None:
        text = json.dumps({"family": "vit", "kind": "encoder", key: text})
    with pytest.raises(DataError, match="description of the model is damaged"):
        info_from_json(text, "x.npz")


@pytest.mark.parametrize("info", EXPECTED.values())
def test_a_description_survives_its_file(info):
    assert info_from_json(info_to_json(info), "x") == info
