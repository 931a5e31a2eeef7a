"""Directories for timm: what their config says, without timm here; with timm in `test_convert_torch_exchange.py`."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from localmim_jax.cli.convert import convert
from localmim_jax.convert import timm_folder
from localmim_jax.convert.export import only_encoder
from localmim_jax.convert.folders import Pixels, pixels
from localmim_jax.errors import ConfigError
from localmim_jax.models.classifier import Classifier
from localmim_jax.tasks import initialize
from tests.defaults import classifier_config, encoder_config
from tests.test_convert_folders import SWIN, VIT, assert_equal_arrays
from tests.test_convert_huggingface import random_model

GRAY = Pixels((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), 37)
REG = encoder_config("vit_reg_s", image_size=(32, 32), width=16, depth=2, num_heads=2, num_registers=3)
SWIN_1E5 = dataclasses.replace(SWIN, epsilon=1e-5)
MODELS = {
    "mean": classifier_config(encoder=VIT, num_classes=3),
    "class": classifier_config(encoder=VIT, num_classes=3, pool="class"),
    "norm_pool": classifier_config(encoder=VIT, num_classes=3, head_order="norm_pool"),
    "registers": classifier_config(encoder=REG, num_classes=3),
    "swin": classifier_config(encoder=SWIN_1E5, num_classes=3, head_order="norm_pool"),
}


def exported(weights, directory):
    arrays, config, notes = timm_folder.export(weights)
    timm_folder.write(directory, arrays, config, GRAY)
    return notes


@pytest.mark.parametrize("name", MODELS)
def test_a_classifier_comes_back(tmp_path, name):
    _, _, weights = random_model(Classifier, MODELS[name])
    assert exported(weights, tmp_path / "x") == []
    again = initialize.read(str(tmp_path / "x"))
    assert again.info == weights.info
    assert (again.unexpected, again.assumed) == ({}, {})
    assert_equal_arrays(again.arrays, weights.arrays)
    assert pixels(tmp_path / "x") == GRAY
    arrays, _, _ = timm_folder.export(again)
    assert_equal_arrays(load_file(tmp_path / "x" / "model.safetensors"), arrays)


def test_what_the_config_says(tmp_path):
    _, _, weights = random_model(Classifier, MODELS["registers"])
    exported(weights, tmp_path / "x")
    config = json.loads((tmp_path / "x" / "config.json").read_text())
    assert (config["architecture"], config["num_classes"], config["global_pool"]) == ("vit_base_patch16_224", 3, "avg")
    assert config["model_args"] == {
        **{"img_size": [32, 32], "patch_size": 16, "in_chans": 3, "embed_dim": 16, "depth": 2, "num_heads": 2},
        **{"mlp_ratio": 4.0, "class_token": True, "global_pool": "avg", "fc_norm": True, "reg_tokens": 3},
        "no_embed_class": True,
    }
    cfg = config["pretrained_cfg"]
    assert (cfg["input_size"], cfg["mean"], cfg["std"]) == ([3, 32, 32], [0.5] * 3, [0.25] * 3)
    assert int(32 / cfg["crop_pct"]) == 37


def test_an_encoder_gets_a_plain_norm_and_a_swin_of_another_epsilon_a_note(tmp_path):
    _, _, weights = random_model(Classifier, classifier_config(encoder=SWIN, num_classes=3))
    notes = exported(only_encoder(weights), tmp_path / "x")
    assert [note.split(":")[0] for note in notes] == [
        "no norm follows the encoder",
        "timm's swin_base_patch4_window7_224 has layer norms of epsilon 1e-05, and these weights were trained with "
        "1e-06",
    ]
    arrays = load_file(tmp_path / "x" / "model.safetensors")
    assert (arrays["norm.weight"] == 1).all()
    assert not any(name.startswith("head.") for name in arrays)
    assert json.loads((tmp_path / "x" / "config.json").read_text())["num_classes"] == 0


def test_what_timm_cannot_express():
    _, _, weights = random_model(Classifier, classifier_config(encoder=SWIN, num_classes=3))
    with pytest.raises(ConfigError, match="pools before the norm"):
        timm_folder.export(weights)
    headless = dataclasses.replace(weights.info, num_heads=None)
    with pytest.raises(ConfigError, match="does not give its number of attention heads"):
        timm_folder.export(dataclasses.replace(weights, info=headless))
    segmenter = dataclasses.replace(weights.info, kind="segmenter")
    with pytest.raises(ConfigError, match="timm has no such segmenter; export the encoder alone"):
        timm_folder.export(dataclasses.replace(weights, info=segmenter))


@pytest.mark.parametrize(("short", "resize"), [(224, 256), (224, 224), (32, 37), (384, 438), (192, 219), (96, 110)])
def test_the_crop_is_that_of_our_evaluation(short, resize):
    assert int(np.floor(short / timm_folder.crop_pct(short, resize))) == resize


def test_by_the_command_line_means_are_carried_along(tmp_path):
    _, _, weights = random_model(Classifier, MODELS["class"])
    exported(weights, tmp_path / "x")
    lines = convert(str(tmp_path / "x"), str(tmp_path / "y.v1"), names="timm")
    assert "timm's vit_base_patch16_224, " in lines[-1]
    assert pixels(tmp_path / "y.v1") == GRAY
    lines = convert(str(tmp_path / "x"), str(tmp_path / "z"), names="transformers")
    assert pixels(tmp_path / "z") == GRAY
