"""Directories and files of Transformers and timm come in, without torch: what names and configs tell, and refuse."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file
from skimage import data

import localmim_jax
from localmim_jax.cli.convert import convert
from localmim_jax.convert import files, folders, huggingface, timm_folder
from localmim_jax.convert.export import only_encoder
from localmim_jax.data.augment import EvalTransform
from localmim_jax.errors import ConfigError, DataError
from localmim_jax.models.classifier import Classifier
from localmim_jax.tasks import initialize, inputs
from tests.defaults import classifier_config, swin_config, vit_config
from tests.test_convert_huggingface import IMAGENET, random_model
from tests.test_convert_recognize import assert_same

VIT = vit_config(image_size=(32, 32), width=16, depth=2, num_heads=2, position="learned")
SWIN = swin_config(image_size=(32, 32), width=8, depths=(1, 1), num_heads=(1, 2), window=4)
HEADS = {"vit": {"pool": "class"}, "swin": {"head_order": "norm_pool"}}


@pytest.fixture(scope="module", params=["vit", "swin"])
def classifier(request):
    encoder = {"vit": VIT, "swin": SWIN}[request.param]
    return random_model(Classifier, classifier_config(encoder=encoder, num_classes=3, **HEADS[request.param]))[2]


def exported(weights, directory):
    arrays, config, _ = huggingface.export(weights)
    huggingface.write(directory, arrays, config, IMAGENET)
    return directory


def assert_equal_arrays(found, expected):
    assert found.keys() == expected.keys()
    for path, array in expected.items():
        np.testing.assert_array_equal(found[path], array, err_msg=path)


def test_our_own_export_to_transformers_comes_back(classifier, tmp_path):
    folder = exported(classifier, tmp_path / "x")
    again = initialize.read(str(folder))
    assert again.info == classifier.info
    assert (again.unexpected, again.ignored, again.assumed) == ({}, {}, {})
    assert_equal_arrays(again.arrays, classifier.arrays)
    assert initialize.read(str(folder / "model.safetensors")).info == again.info  # the config lies beside it
    arrays, config, plain = huggingface.export(again)
    assert_same(arrays, load_file(folder / "model.safetensors"))
    assert config == json.loads((folder / "config.json").read_text())
    assert not plain


def test_the_file_alone_and_an_encoder_with_its_norm(classifier, tmp_path):
    folder = exported(only_encoder(classifier), tmp_path / "x")
    (folder / "model.safetensors").rename(tmp_path / "alone.safetensors")
    again = initialize.read(str(tmp_path / "alone.safetensors"))
    assert (again.info.kind, again.unexpected) == ("encoder", {})
    expected = only_encoder(classifier).arrays
    assert_equal_arrays({path: array for path, array in again.arrays.items() if path in expected}, expected)
    assert again.arrays.keys() - expected.keys() == {"norm/scale", "norm/bias"}


def prefixed(weights, prefix):
    arrays, _, _ = huggingface.export(only_encoder(weights))
    return {f"{prefix}{name}": array for name, array in arrays.items()}


def test_pretraining_models_of_transformers_leave_their_decoders_behind(classifier, tmp_path):
    prefix = f"{classifier.info.family}."
    own = {f"{prefix}embeddings.mask_token": np.zeros((1, 1, 8), np.float32)}
    own |= {
        "decoder.0.weight": np.zeros((4, 4, 1, 1), np.float32),
        "decoder.decoder_norm.bias": np.zeros(4, np.float32),
    }
    own |= {f"{prefix}pooler.dense.weight": np.zeros((4, 4), np.float32)}
    save_file(prefixed(classifier, prefix) | own, tmp_path / "x.safetensors")
    weights = initialize.read(str(tmp_path / "x.safetensors"))
    assert (weights.info.kind, weights.unexpected) == ("encoder", {})
    assert len(weights.ignored) == 4


def test_layers_without_a_bias_get_one_of_zeros(classifier, tmp_path):
    arrays = prefixed(classifier, "")
    names = [name for name in arrays if name.endswith((".query.bias", ".key.bias", ".value.bias"))]
    save_file({name: array for name, array in arrays.items() if name not in names}, tmp_path / "x.safetensors")
    weights = initialize.read(str(tmp_path / "x.safetensors"))
    biases = [array for path, array in weights.arrays.items() if path.endswith("qkv/bias")]
    assert len(biases) == len(names) // 3
    assert not np.any(np.concatenate(biases))
    save_file({name: array for name, array in arrays.items() if name != names[0]}, tmp_path / "y.safetensors")
    assert len(initialize.read(str(tmp_path / "y.safetensors")).unexpected) == 2  # a part without the others


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "deit"}, r"model_type 'deit'; known are vit, vit_mae, swin"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu', and models here have 'gelu'"),
        ({"image_size": "large"}, r"config\.json is damaged or unusual"),
        ({"image_size": [-1, 4]}, "-1 where a positive number is expected"),
        ({"layer_norm_eps": None}, r"config\.json is damaged or unusual"),
        ({"num_heads": [1.5, "x"]}, "1.5 where a positive number is expected"),
    ],
)
def test_configs_that_cannot_be_followed(classifier, tmp_path, changes, message):
    folder = exported(classifier, tmp_path / "x")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(DataError, match=message) as error:
        initialize.read(str(folder))
    assert "\n" not in str(error.value)


def test_shards(classifier, tmp_path):
    folder = exported(classifier, tmp_path / "x")
    arrays = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, shards = sorted(arrays), [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    weight_map = {name: shards[i % 2] for i, name in enumerate(names)}
    for shard in shards:
        save_file({name: arrays[name] for name in names if weight_map[name] == shard}, folder / shard)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    assert_equal_arrays(initialize.read(str(folder)).arrays, classifier.arrays)
    with pytest.raises(DataError, match=r"00001-of-00002\.safetensors is shard 1 of 2 of one model: give the dir"):
        initialize.read(str(folder / shards[0]))
    with pytest.raises(DataError, match="is the index of a sharded model: give its directory"):
        initialize.read(str(index))
    index.write_text(json.dumps({"weight_map": weight_map | {"more": shards[0]}}))
    with pytest.raises(DataError, match="its shards lack 1 arrays of the index: more"):
        initialize.read(str(folder))
    (folder / shards[1]).unlink()
    with pytest.raises(DataError, match=r"1 of 2 shards are missing: model-00002-of-00002\.safetensors"):
        initialize.read(str(folder))
    for text in ("[]", '{"weight_map": {"a": "../x.safetensors"}}', '{"weight_map": 3}', "{"):
        index.write_text(text)
        with pytest.raises(DataError, match=r"index\.json is damaged"):
            initialize.read(str(folder))
    index.unlink()
    with pytest.raises(DataError, match=r"has a config\.json, but no weights beside it: model\.safetensors or"):
        initialize.read(str(folder))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "is a pointer of Git LFS"),
        (b"<!DOCTYPE html>\n<html>sign in</html>", "is a web page, or damaged"),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pth"])
def test_what_is_downloaded_in_place_of_weights(tmp_path, content, message, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        files.read(path)


def test_pytorch_files_are_refused_before_they_are_read(tmp_path, monkeypatch):
    """Neither the file's digest nor torch, which both take long, comes first."""
    path = tmp_path / "x.pth"
    path.write_bytes(b"PK")
    monkeypatch.setattr(files.hashlib, "file_digest", lambda *_: pytest.fail("the file was read"))
    monkeypatch.setattr(files.torch_io.importlib.util, "find_spec", lambda name: None)
    for call in (files.read, files.check_readable, files.check_suffix):
        with pytest.raises(ConfigError, match=r"x\.pth: PyTorch files need torch: pip install 'localmim-jax\[torch\]'"):
            call(path)
    monkeypatch.undo()
    monkeypatch.setattr(files.torch_io.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(files.torch_io.importlib.metadata, "version", lambda name: "2.9.1")
    with pytest.raises(ConfigError, match=r"torch 2\.9\.1 cannot read untrusted files safely"):
        files.check_readable(path)


def test_how_a_directory_prepares_images(classifier, tmp_path):
    folder = exported(classifier, tmp_path / "x")
    assert folders.pixels(folder) == dataclasses.replace(IMAGENET, mean=IMAGENET.mean, std=IMAGENET.std)
    (folder / "preprocessor_config.json").write_text('{"size": {}}')
    assert folders.pixels(folder) is None
    assert folders.pixels(tmp_path) is None


PREPARED = {  # by Transformers' preprocessor, and by timm's pretrained_cfg
    "google's ViT": ({"size": {"height": 32, "width": 32}, "resample": 2}, (32, "bilinear", True)),
    "an older ViT": ({"size": 32, "resample": 3, "do_resize": True}, (32, "bicubic", True)),
    "a short side": ({"size": {"shortest_edge": 40}, "do_center_crop": True, "resample": 1}, (40, "lanczos", False)),
    "only a crop": ({"size": 40, "do_center_crop": True, "do_resize": False, "crop_size": 32}, (32, "bilinear", False)),
    "timm's ViT": ({"crop_pct": 0.9, "interpolation": "bicubic"}, (35, "bicubic", False)),
    "timm's DeiT at 384": (
        {"crop_pct": 1.0, "crop_mode": "squash", "interpolation": "bilinear"},
        (32, "bilinear", True),
    ),
    "timm's default": ({}, (36, "bicubic", False)),
}


@pytest.mark.parametrize("name", PREPARED)
def test_images_are_prepared_as_the_directory_says(tmp_path, name):
    """The features are those of an image that Pillow has prepared by hand, and both exports carry it on."""
    said, (resize, interpolation, squash) = PREPARED[name]
    _, _, weights = random_model(Classifier, classifier_config(encoder=VIT, num_classes=3, **HEADS["vit"]))
    if "timm" in name:
        arrays, config, _ = timm_folder.export(weights)
        config["pretrained_cfg"] |= {"mean": [0.5] * 3, "std": [0.25] * 3}
        del config["pretrained_cfg"]["interpolation"], config["pretrained_cfg"]["crop_mode"]
        config["pretrained_cfg"] |= said
        timm_folder.write(tmp_path / "x", arrays, config, None)
    else:
        folder = exported(weights, tmp_path / "x")
        text = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, **said}
        (folder / "preprocessor_config.json").write_text(json.dumps(text))
    found = folders.pixels(tmp_path / "x")
    assert found == folders.Pixels((0.5,) * 3, (0.25,) * 3, resize, interpolation, squash)
    for names in ("timm", "transformers"):
        convert(str(tmp_path / "x"), str(tmp_path / names), names=names)
        assert folders.pixels(tmp_path / names) == found
    model = localmim_jax.load(tmp_path / "x")
    assert (tuple(model.config.data.mean), tuple(model.config.data.std)) == (found.mean, found.std)
    image = Image.fromarray(data.astronaut()[:90, :120])
    size = (resize, resize) if squash else (resize * 120 // 90, resize)
    prepared = image.resize(size, Image.Resampling[interpolation.upper()])
    left, top = (round((side - 32) / 2) for side in size)
    transform = EvalTransform.of(inputs.data_config(model.config), model.eval_resize())
    pixels = transform({"image": np.asarray(image)}, np.random.default_rng(0))["image"]
    np.testing.assert_array_equal(pixels, np.asarray(prepared.crop((left, top, left + 32, top + 32))))


def test_another_scale_of_pixels_and_none_at_all(tmp_path):
    _, _, weights = random_model(Classifier, classifier_config(encoder=VIT, num_classes=3, **HEADS["vit"]))
    folder = exported(weights, tmp_path / "x")

    def pixels(**said):
        text = {"size": 32, "image_mean": [0.5] * 3, "image_std": [0.25] * 3, **said}
        (folder / "preprocessor_config.json").write_text(json.dumps(text))
        return folders.pixels(folder)

    halved = pixels(rescale_factor=2 / 255)  # 2 x - 0.5 over 0.25, where x is in 0..1
    np.testing.assert_allclose([*halved.mean, *halved.std], [0.25] * 3 + [0.125] * 3)
    assert pixels(do_normalize=False) == folders.Pixels((0, 0, 0), (1, 1, 1), 32, "bilinear", True)
    assert pixels(size={"longest_edge": 3}) is None
    assert pixels(resample=17) is None
    (folder / "preprocessor_config.json").unlink()
    assert folders.pixels(folder) is None
