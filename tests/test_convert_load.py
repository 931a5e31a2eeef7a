"""Strict loading in both directions, and the table that tells what became of every array."""

import dataclasses
import functools
import re

import numpy as np
import pytest

from localmim_jax import params as trees
from localmim_jax.convert import files, interpolate, load, names
from localmim_jax.convert.recognize import recognize
from localmim_jax.convert.weights import Weights
from localmim_jax.errors import ConfigError
from localmim_jax.method.localmim import LocalMIM
from localmim_jax.models.classifier import Classifier
from localmim_jax.models.info import ModelInfo
from localmim_jax.models.positions import sincos_2d
from tests.defaults import classifier_config, localmim_config, swin_config, target_config, vit_config
from tests.oracle import PretrainOracle

POSITIONS = "encoder/position_embedding"
VIT = vit_config(image_size=(64, 64), width=32, depth=8, num_heads=4, position="learned")
SWIN = swin_config(width=8, depths=(2, 2, 4, 2), num_heads=(1, 2, 4, 8), epsilon2=1e-5)


def read(goldens, name, **changes):
    weights = recognize(*files.read(goldens / f"{name}.npz"), name)
    return dataclasses.replace(weights, info=dataclasses.replace(weights.info, **changes))


@functools.cache
def shapes(model, config):
    _, abstract, _ = trees.split(lambda rngs: model(config, rngs=rngs))
    return {path: leaf.shape for path, leaf in trees.flatten(abstract).items()}


def fresh(model, config, **changed_shapes):
    """The model's parameters, of a constant that no golden holds: it shows where nothing was loaded."""
    flat = shapes(model, config) | changed_shapes
    return trees.unflatten({path: np.full(shape, 7.0, np.float32) for path, shape in flat.items()})


def classifier(encoder, changed_shapes=None, **changes):
    """A classifier's description and parameters. To trace few models, what `changes` does to shapes is given."""
    config = classifier_config(encoder=encoder, num_classes=10)
    info = dataclasses.replace(config.describe(), **changes)
    return info, fresh(Classifier, config, **(changed_shapes or {}))


def statuses(report):
    found = {}
    for row in report.rows:
        found.setdefault(row.status, []).append(row.path)
    return found


def test_a_whole_vit_pretraining_model(goldens):
    oracle = PretrainOracle("vit_hog18_bias")
    info, own = oracle.config.describe(), fresh(LocalMIM, oracle.config)
    weights = read(goldens, "vit_hog18_bias")
    assert weights.info == dataclasses.replace(info, num_heads=None, epsilon=None)
    params, report = load.transfer(weights, own, info)
    load.check(report)
    assert set(statuses(report)) == {"loaded", "ignored"}
    found = trees.flatten(params)
    for path, array in names.import_arrays(oracle.source, found, oracle.rules()).items():
        np.testing.assert_array_equal(found[path], array, err_msg=path)


def test_a_whole_swin_pretraining_model(goldens):
    target = target_config(bins=15, cells=(8, 16, 32, 32))
    config = localmim_config(SWIN, (1, 2, 3, 4), target, decoder_width=(8, 16, 16, 16), decoder_num_heads=2)
    info, own = config.describe(), fresh(LocalMIM, config)
    weights = read(goldens, "swin_hog15")
    assert weights.info == dataclasses.replace(info, epsilon=None)
    _, report = load.transfer(weights, own, info)
    load.check(report)
    assert set(statuses(report)) == {"loaded", "ignored"}


@pytest.mark.parametrize(("name", "encoder"), [("vit_classifier", VIT), ("swin_classifier", SWIN)])
def test_a_whole_classifier(goldens, name, encoder):
    info, own = classifier(encoder)
    params, report = load.transfer(read(goldens, name), own, info)
    load.check(report)
    assert set(statuses(report)) == {"loaded"}
    assert not any((array == 7).all() for array in trees.flatten(params).values())


def test_from_pretraining_only_the_encoder_goes_over(goldens):
    info, own = classifier(VIT)
    params, report = load.transfer(read(goldens, "vit_hog9"), own, info)
    load.check(report)
    found = statuses(report)
    assert sorted(found["initialized"]) == ["head/bias", "head/kernel", "norm/bias", "norm/scale"]
    assert all(path.startswith(("decoder", "hog_enc")) for path in found["ignored"])
    assert sum(path.startswith("decoders/") for path in found["ignored"]) == 192 - 100
    assert all((params["norm"][leaf] == 7).all() for leaf in params["norm"])
    np.testing.assert_array_equal(params["encoder"]["position_embedding"][1:], sincos_2d((4, 4), 32))
    table = report.table()
    assert re.search(r"loaded +encoder/blocks/\*/attention/qkv/kernel +8\n", table)
    assert re.search(r"initialized +head/kernel +1 +new\n", table)
    assert report.summary() == "100 loaded, 4 initialized, 100 ignored"


def test_swin_pretraining_into_a_classifier(goldens):
    info, own = classifier(SWIN)
    _, report = load.transfer(read(goldens, "swin_hog15"), own, info)
    load.check(report)
    assert len(statuses(report)["initialized"]) == 4


def test_another_image_size_resizes_the_positions(goldens):
    info, own = classifier(VIT, {POSITIONS: (1 + 6 * 3, 32)}, image_size=(96, 48))
    weights = read(goldens, "vit_classifier")
    params, report = load.transfer(weights, own, info)
    load.check(report)
    assert statuses(report)["resized"] == [POSITIONS]
    assert "4x4 -> 6x3 patches, bicubic" in report.table()
    found, old = params["encoder"]["position_embedding"], weights.arrays[POSITIONS]
    assert found.shape == (1 + 6 * 3, 32)
    np.testing.assert_array_equal(found[0], old[0])
    np.testing.assert_array_equal(found[1:], interpolate.resize_grid(old[1:], (4, 4), (6, 3), "bicubic"))


def test_the_same_number_of_patches_on_another_grid_is_resized_too(goldens):
    info, own = classifier(VIT, image_size=(128, 32))
    _, report = load.transfer(read(goldens, "vit_classifier"), own, info)
    assert statuses(report)["resized"] == [POSITIONS]


def test_fixed_positions_are_the_models_own_but_learned_ones_are_refused(goldens):
    info, own = classifier(VIT)
    del own["encoder"]["position_embedding"]
    _, report = load.transfer(read(goldens, "vit_hog9"), own, info)
    load.check(report)
    assert POSITIONS in statuses(report)["ignored"]
    _, report = load.transfer(read(goldens, "vit_classifier"), own, info)
    with pytest.raises(ConfigError, match=f"mismatched {POSITIONS}: learned in the source, fixed sine-cosine"):
        load.check(report)


def test_another_number_of_classes_keeps_the_new_head(goldens):
    info, own = classifier(VIT, {"head/kernel": (32, 37), "head/bias": (37,)})
    params, report = load.transfer(read(goldens, "vit_classifier"), own, info)
    load.check(report)
    assert set(statuses(report)["initialized"]) == {"head/kernel", "head/bias"}
    assert (params["head"]["kernel"] == 7).all()
    assert "norm/scale" in statuses(report)["loaded"]
    assert "new: the source's has shape [32, 10]" in report.table()


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_other_channels_answer_a_gray_image_as_before(goldens, channels):
    info, own = classifier(VIT, {"encoder/patch_embed/kernel": (16, 16, channels, 32)})
    weights = read(goldens, "vit_classifier")
    params, report = load.transfer(weights, own, info)
    load.check(report)
    kernel = params["encoder"]["patch_embed"]["kernel"]
    assert kernel.shape == (16, 16, channels, 32)
    gray = weights.arrays["encoder/patch_embed/kernel"].sum(axis=2)
    np.testing.assert_allclose(kernel.sum(axis=2), gray, atol=1e-6)
    assert ("resized" in statuses(report)) == (channels != 3)


def test_bias_tables_are_resized_for_another_image_size_only(goldens):
    weights = read(goldens, "swin_classifier", image_size=(224, 224))
    _, own = classifier(SWIN)
    tables_of = [path for path in trees.flatten(own) if path.endswith("relative_position_bias")]
    shape = {path: (23**2, trees.flatten(own)[path].shape[1]) for path in tables_of}
    info, own = classifier(SWIN, shape, image_size=(384, 384))
    params, report = load.transfer(weights, own, info)
    load.check(report)
    assert statuses(report)["resized"] == tables_of
    path = tables_of[0]
    expected = interpolate.resize_grid(weights.arrays[path], (13, 13), (23, 23), "bicubic")
    np.testing.assert_array_equal(trees.flatten(params)[path], expected)
    _, report = load.transfer(weights, own, dataclasses.replace(info, image_size=(224, 224)))
    with pytest.raises(ConfigError, match="window 7 in the source, 12 in the model, for the same image size"):
        load.check(report)
    assert [row.path for row in report.problems] == tables_of
    # The release's files without masks of shifted windows do not tell the image size.
    _, report = load.transfer(read(goldens, "swin_classifier"), own, info)
    load.check(report)


@pytest.mark.parametrize("rows", [168, 144])
def test_a_table_of_no_window_is_refused(goldens, rows):
    info, own = classifier(SWIN)
    weights = read(goldens, "swin_classifier")
    weights.arrays["encoder/stages/0/blocks/0/attention/relative_position_bias"] = np.ones((rows, 1), np.float32)
    _, report = load.transfer(weights, own, info)
    with pytest.raises(ConfigError, match=rf"\[{rows}, 1\] -> \[169, 1\]: of no window"):
        load.check(report)


def without(weights, pattern):
    return dataclasses.replace(
        weights, arrays={path: array for path, array in weights.arrays.items() if pattern not in path}
    )


def test_every_problem_is_named_at_once(goldens):
    info, own = classifier(SWIN)
    weights = without(read(goldens, "swin_classifier"), "relative_position_bias")
    weights.arrays["encoder/stages/0/blocks/9/norm1/scale"] = np.ones(8, np.float32)
    weights.arrays["encoder/patch_norm/scale"] = np.ones(16, np.float32)
    weights.unexpected["layers.0.gamma"] = "no part of this model has such a name"
    _, report = load.transfer(weights, own, info)
    with pytest.raises(ConfigError) as error:
        load.check(report)
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith("swin_classifier does not fit this model: ")
    assert "missing encoder/stages/*/blocks/*/attention/relative_position_bias (2): of shape [169, 1]" in text
    assert "mismatched encoder/patch_norm/scale: [16] in the source, [8] in the model" in text
    assert "unexpected encoder/stages/*/blocks/*/norm1/scale" in text
    assert "unexpected layers.*.gamma" in text
    assert text in f"{report.origin} does not fit this model: {report.summary()}"


def test_renamed_keys_are_missing_and_unexpected(goldens):
    info, own = classifier(VIT)
    weights = read(goldens, "vit_classifier")
    weights.arrays["encoder/blocks/3/attention/projection/kernel"] = weights.arrays.pop(
        "encoder/blocks/3/attention/proj/kernel"
    )
    _, report = load.transfer(weights, own, info)
    assert {(row.status, row.path) for row in report.problems} == {
        ("missing", "encoder/blocks/3/attention/proj/kernel"),
        ("unexpected", "encoder/blocks/3/attention/projection/kernel"),
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": (8,)}, r"mismatched num_heads: \(8,\) in the source, \(4,\) in the model"),
        ({"pool": "class"}, "mismatched pool: class in the source, mean in the model"),
        ({"head_order": "norm_pool"}, "mismatched head_order"),
        ({"family": "swin"}, "mismatched backbone: the source is a swin, the model a vit"),
    ],
)
def test_what_shapes_do_not_show_is_compared_too(goldens, changes, message):
    info, own = classifier(VIT)
    _, report = load.transfer(read(goldens, "vit_classifier", **changes), own, info)
    with pytest.raises(ConfigError, match=message):
        load.check(report)


def test_pooling_does_not_matter_where_the_head_is_new(goldens):
    info, own = classifier(VIT, pool="class")
    _, report = load.transfer(read(goldens, "vit_hog9"), own, info)
    load.check(report)


def test_a_model_may_have_new_parameters_by_name(goldens):
    info, own = classifier(VIT)
    own["encoder"]["blocks"]["0"]["scale1"] = np.zeros(32, np.float32)
    _, report = load.transfer(read(goldens, "vit_hog9"), own, info)
    assert [row.path for row in report.problems] == ["encoder/blocks/0/scale1"]
    _, report = load.transfer(read(goldens, "vit_hog9"), own, info, fresh=(r"encoder/blocks/\d+/scale[12]",))
    load.check(report)


def test_an_encoder_alone_fills_no_head(goldens):
    info, own = classifier(VIT)
    weights = read(goldens, "vit_classifier", kind="encoder")
    params, report = load.transfer(weights, own, info)
    load.check(report)
    assert set(statuses(report)["ignored"]) == {"norm/scale", "norm/bias", "head/kernel", "head/bias"}
    assert (params["norm"]["scale"] == 7).all()


def test_long_names_of_a_stranger_do_not_flood_the_message():
    weights = Weights({}, ModelInfo("vit", "encoder"), "x", {}, {"a" * 5000: "no part of this model has such a name"})
    _, report = load.transfer(weights, {"encoder": {}}, ModelInfo("vit", "encoder"))
    with pytest.raises(ConfigError) as error:
        load.check(report)
    assert len(str(error.value)) < 300
