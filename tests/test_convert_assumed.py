"""What a file does not tell is assumed, said, and can be said otherwise; nothing is refused for an assumption."""

import dataclasses

import numpy as np
import pytest

from localmim_jax.convert import files
from localmim_jax.convert.export import export
from localmim_jax.convert.load import check, transfer
from localmim_jax.convert.recognize import recognize
from localmim_jax.convert.swin_names import swap_merging_order
from localmim_jax.convert.weights import info_to_json
from localmim_jax.errors import ConfigError
from localmim_jax.tasks import initialize
from tests.defaults import classifier_config
from tests.test_convert_load import SWIN, VIT, classifier, read, statuses
from tests.test_convert_recognize import assert_same, source

MODEL = classifier_config(encoder=SWIN, num_classes=10, head_order="norm_pool")
HALF = 21  # classes of another head than the goldens' ten


@pytest.fixture(scope="module")
def released(goldens):
    return source(goldens, "swin_hog15")


def encoder_alone(released):
    """A pre-training Swin without its decoders: what is left of SimMIM's names too."""
    return {name: array for name, array in released.items() if name.startswith(("encoder.layers.", "encoder.patch_"))}


def simmim(released):
    width = released["encoder.norm.3.weight"].shape[0]
    own = {"encoder.norm.weight": np.ones(width, np.float32), "encoder.norm.bias": np.zeros(width, np.float32)}
    own |= {"encoder.mask_token": np.zeros((1, 1, 8), np.float32)}
    own |= {"decoder.0.weight": np.zeros((3 * 32**2, width, 1, 1), np.float32), "decoder.0.bias": np.zeros(3 * 32**2)}
    return encoder_alone(released) | own


def reduction(weights):
    return weights.arrays["encoder/stages/0/merging/reduction/kernel"]


def test_simmims_merging_layers_are_left_alone(released):
    weights = recognize(simmim(released), {}, "simmim.pth")
    assert (weights.info.kind, weights.unexpected, weights.assumed) == ("encoder", {}, {})
    assert set(weights.ignored) == {"encoder.mask_token", "decoder.0.weight", "decoder.0.bias"}
    np.testing.assert_array_equal(reduction(weights), released["encoder.layers.0.downsample.reduction.weight"].T)
    assert "norm/scale" in weights.arrays
    again = recognize(simmim(released), {}, "simmim.pth", standard_merging=False)  # its names prove the order
    np.testing.assert_array_equal(reduction(again), reduction(weights))


def test_without_decoders_the_standard_order_is_assumed_and_said(released, caplog, tmp_path):
    arrays = encoder_alone(released)
    weights = recognize(arrays, {}, "x")
    assert "checkpoint.standard_merging=false" in weights.assumed["merging"]
    np.testing.assert_array_equal(reduction(weights), released["encoder.layers.0.downsample.reduction.weight"].T)
    told = {answer: recognize(arrays, {}, "x", standard_merging=answer) for answer in (True, False)}
    assert told[True].assumed == told[False].assumed == {}
    assert_same(told[True].arrays, weights.arrays)
    assert_same(told[False].arrays, swap_merging_order(weights.arrays))
    expected = recognize(released, {}, "x").arrays  # proven by its decoders: permuted without a word
    assert_same(told[False].arrays, {path: expected[path] for path in weights.arrays})
    np.savez(tmp_path / "x.npz", **arrays)
    initialize.read(str(tmp_path / "x.npz"))
    assert "x.npz: no decoder of the release proves its order of patch merging" in caplog.text
    caplog.clear()
    initialize.read(str(tmp_path / "x.npz"), standard_merging=True)
    assert "patch merging" not in caplog.text


def test_norms_of_taps_whose_decoders_are_missing_are_left_out(released):
    kept = encoder_alone(released) | {name: a for name, a in released.items() if name.startswith("encoder.norm.")}
    weights = recognize(kept, {}, "x")
    assert (len(weights.ignored), weights.unexpected) == (8, {})


@pytest.mark.parametrize("classes", [10, HALF])
def test_an_original_swins_head_is_refused_for_nothing_it_does_not_tell(goldens, caplog, classes):
    shapes = {"head/kernel": (64, classes), "head/bias": (classes,)}
    _, own = classifier(SWIN, shapes)
    weights = read(goldens, "swin_classifier")
    assert "head_order" in weights.assumed
    model = dataclasses.replace(MODEL, num_classes=classes)
    _, _, report = initialize.load_into(weights, own, {}, model)
    check(report)
    assert ("head/kernel" in statuses(report)["loaded"]) == (classes == 10)
    assert ("its names do not tell whether its head pools before the norm" in caplog.text) == (classes == 10)


@pytest.mark.parametrize(("known", "value"), [("pool", "class"), ("head_order", "norm_pool")])
def test_a_new_head_may_read_the_tokens_otherwise(goldens, known, value):
    """A timm ViT's head on the class token, and a new one on the mean; its norm begins anew with it."""
    changes = {known: value}
    weights = read(goldens, "vit_classifier", **changes)
    info, own = classifier(VIT, {"head/kernel": (32, HALF), "head/bias": (HALF,)})
    params, report = transfer(weights, own, info)
    check(report)
    assert set(statuses(report)["initialized"]) == {"head/kernel", "head/bias", "norm/scale", "norm/bias"}
    assert (params["norm"]["scale"] == 7).all()
    assert f"new: {known} is {value} in the source" in report.table()
    info, own = classifier(VIT)
    with pytest.raises(ConfigError, match=f"mismatched {known}"):
        check(transfer(weights, own, info)[1])


def test_what_our_own_note_says_is_no_assumption(goldens, tmp_path):
    weights = recognize(source(goldens, "swin_classifier"), {}, "x")
    arrays, info = export(weights, "localmim")
    files.write(tmp_path / "x.safetensors", arrays, info_to_json(dataclasses.replace(info, head_order="norm_pool")))
    assert initialize.read(str(tmp_path / "x.safetensors")).assumed == {}


def test_timms_pooled_vit_without_a_head_is_an_encoder(goldens):
    original = {key: value for key, value in source(goldens, "vit_classifier").items() if not key.startswith("head.")}
    weights = recognize(original, {}, "timm")
    assert (weights.info.kind, weights.info.pool, weights.unexpected) == ("encoder", "mean", {})
    assert_same(export(weights, "timm")[0], original)
    info, own = classifier(VIT)
    _, report = transfer(weights, own, info)
    check(report)
    assert len(statuses(report)["initialized"]) == 4
