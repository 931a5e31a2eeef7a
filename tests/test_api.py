"""`localmim_jax.load` and what a model computes of images."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

import localmim_jax
from localmim_jax.cli import features
from localmim_jax.cli.convert import convert
from localmim_jax.convert import files
from localmim_jax.errors import ConfigError, DataError
from tests.own_data import photographs


@pytest.fixture(scope="module")
def model(small_run):
    return localmim_jax.load(small_run)


@pytest.fixture(scope="module")
def encoded(model):
    return model.encode(photographs(3))


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def test_importing_the_package_imports_nothing_else():
    code = "import sys, localmim_jax; print(sorted({'jax', 'numpy', 'flax', 'absl'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
    with pytest.raises(AttributeError, match="no attribute 'encode'"):
        _ = localmim_jax.encode


def test_every_kind_of_image_gives_the_same_features(model, encoded, tmp_path):
    images = photographs(3)
    (tmp_path / "a b.png").write_bytes(png(images[1]))
    mixed = [{"image": images[0].astype(np.float32) / 255}, tmp_path / "a b.png", Image.fromarray(images[2])]
    for given in (mixed, [png(image) for image in images], iter(images)):
        found = model.encode(given)
        np.testing.assert_array_equal(found.pooled, encoded.pooled)
        np.testing.assert_array_equal(found.tokens, encoded.tokens)
    single = model.encode(str(tmp_path / "a b.png"), tokens=False)
    np.testing.assert_allclose(single.pooled, encoded.pooled[1:2], atol=1e-6)
    assert single.tokens is None
    assert encoded.pooled.shape == (3, 32)
    assert encoded.tokens.shape == (3, 17, 32)
    assert encoded.patches.shape == (3, 4, 4, 32)
    np.testing.assert_array_equal(encoded.patches[0, 1, 2], encoded.tokens[0, 1 + 4 + 2])


def test_images_of_more_than_8_bits_have_the_models_levels_and_a_warning_where_they_are_dark(
    model, monkeypatch, caplog
):
    gray = photographs(1)[0].max(axis=2)
    deep = Image.fromarray(gray.astype(np.uint16) * 16)  # of a 12-bit camera
    given = [np.repeat(gray[:, :, None], 3, axis=2), deep, deep]
    dark = model.encode(given)
    assert (
        "2 of 3 sampled images of images are 16-bit, and with the range of the type as black and white" in caplog.text
    )
    monkeypatch.setitem(model.config.data, "high_bit_depth", "0:4080")
    caplog.clear()
    found = model.encode(given)
    assert "WARNING" not in caplog.text
    np.testing.assert_allclose(found.pooled[1:], found.pooled[[0, 0]], atol=1e-5)
    assert np.abs(dark.pooled[1] - found.pooled[1]).max() > 0.1
    assert model.reconstruct(deep)[0].image.mean() > 90


def test_the_features_command_writes_the_same(model, small_run, encoded, tmp_path):
    for i, image in enumerate(photographs(3)):
        (tmp_path / f"{i}.png").write_bytes(png(image))
    features.extract(str(small_run), str(tmp_path), tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as file:
        np.testing.assert_allclose(file["features"], encoded.pooled, atol=1e-6, rtol=0)


def normalized_alike(model):
    """The model with the small run's normalization, which no file of weights tells."""
    assert model.config.data.mean == (0.485, 0.456, 0.406)
    model.config.data.update({"mean": (0.5,) * 3, "std": (0.25,) * 3})
    return model


def test_a_file_needs_no_config(small_run, encoded, tmp_path):
    """Sizes come from the arrays and our note in the file."""
    convert(str(small_run), str(tmp_path / "weights.safetensors"))
    file = localmim_jax.load(tmp_path / "weights.safetensors")
    assert file.info == localmim_jax.load(small_run).info
    found = normalized_alike(file).encode(photographs(3), resize=32)
    np.testing.assert_allclose(found.pooled, encoded.pooled, atol=1e-5)


def test_a_file_of_timm(small_run, encoded, tmp_path):
    """As others write it: no note, learned positions, a norm behind the encoder."""
    convert(str(small_run), str(tmp_path / "ours.safetensors"), names="timm")
    save_file(load_file(tmp_path / "ours.safetensors"), tmp_path / "timm.safetensors")
    encoder = localmim_jax.load(tmp_path / "timm.safetensors")
    found = normalized_alike(encoder).encode(photographs(3), resize=32)
    np.testing.assert_allclose(found.tokens, encoded.tokens, atol=1e-5)
    np.testing.assert_allclose(found.pooled, encoded.pooled, atol=1e-5)


@pytest.mark.parametrize("names", ["timm", "transformers"])
def test_a_directory_of_timm_or_transformers_says_how_images_are_prepared(small_run, encoded, tmp_path, names):
    convert(str(small_run), str(tmp_path / "x"), names=names)
    again = localmim_jax.load(tmp_path / "x")
    assert again.eval_resize() == 32  # of the run; not the usual 37 for 32
    np.testing.assert_allclose(again.encode(photographs(3)).pooled, encoded.pooled, atol=1e-5)


def test_an_encoder_without_a_run(small_run, encoded, tmp_path):
    convert(str(small_run), str(tmp_path / "encoder.npz"), part="encoder")
    encoder = localmim_jax.load(tmp_path / "encoder.npz")
    assert encoder.info.kind == "encoder"
    found = normalized_alike(encoder).encode(photographs(3), resize=32)
    np.testing.assert_allclose(found.tokens, encoded.tokens, atol=1e-5)
    with pytest.raises(ConfigError, match=r"has no classification head \(encoder\)"):
        encoder.logits(photographs(1))
    with pytest.raises(ConfigError, match=r"holds no decoders \(encoder\)"):
        encoder.reconstruct(photographs(1))


def test_reconstruct(model):
    first, second = model.reconstruct(photographs(2), mask_seed=1)
    np.testing.assert_array_equal(first.mask, second.mask)
    assert first.mask.sum() == 12
    assert [target.shape for target in first.targets] == [(64, 54), (16, 54)]
    assert [prediction.shape for prediction in first.predictions] == [(64, 54), (16, 54)]
    assert first.draw().dtype == np.uint8
    (other,) = model.reconstruct(photographs(1), mask_seed=2)
    assert (other.mask != first.mask).any()


def test_a_new_classifier():
    model = localmim_jax.create_model(
        "vit_ti", num_classes=5, image_size=32, channels=1, depth=1, width=32, num_heads=2, patch_size=16
    )
    assert model.info.kind == "classifier"
    logits = model.logits(np.zeros((2, 40, 50, 1), np.uint8))
    assert logits.shape == (2, 5)
    assert logits.dtype == np.float32
    assert "classifier, 32x32 px" in repr(model)
    with pytest.raises(ConfigError, match="layer=2: the layers are 1 to 1"):
        model.encode(np.zeros((40, 50, 1), np.uint8), layer=2)
    with pytest.raises(ConfigError, match=r"config\.model\.dept: no such key; did you mean"):
        localmim_jax.create_model("vit_ti", dept=1)
    with pytest.raises(ConfigError, match=r"recipe vit_x not found"):
        localmim_jax.create_model("vit_x")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "no image given"),
        (3, "a int is given"),
        (np.zeros((4, 8, 8)), r"an array of shape \[4, 8, 8\] is given; images are"),
        ([np.zeros((8, 8, 3))[..., :2]], "image 0: it has 2 channels"),
        ([np.full((8, 8, 3), 200.0)], r"image 0: its floats are from 200 to 200; they must be in 0\.\.1"),
        ([np.zeros((8, 8, 3), np.int64)], "image 0: its values are of type int64"),
        (["none.png"], r"none\.png: the file cannot be read"),
        ([{"pixels": 1}], "image 0: the example has no 'image', only pixels"),
        ([np.zeros((3, 8, 9), np.uint8)], r"image 0: it has 9 channels .* channels come last"),
    ],
)
def test_images_that_cannot_be_used(model, images, message):
    with pytest.raises(DataError, match=message):
        model.encode(images)


def test_what_a_model_cannot_do_is_said_in_one_line(model, tmp_path):
    for call, message in (
        (model.logits, "has no classification head .*fine-tune it first"),
        (model.predict, "neither segments nor detects"),
    ):
        with pytest.raises(ConfigError, match=message):
            call(photographs(1))
    with pytest.raises(DataError, match="gone does not exist"):
        localmim_jax.load(tmp_path / "gone")
    files.write(tmp_path / "x.npz", {"encoder/x": np.zeros(2)}, '{"family": "vit", "kind": "detector"}')
    with pytest.raises(ConfigError, match="is a detector that does not belong to a run"):
        localmim_jax.load(tmp_path / "x.npz")
