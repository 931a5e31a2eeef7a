"""Export to Hugging Face Transformers: what is written and refused here; the same features, with torch, below."""

import json

import jax
import numpy as np
import pytest

from localmim_jax import params as trees
from localmim_jax.configs import parts
from localmim_jax.convert import huggingface
from localmim_jax.convert.export import only_encoder
from localmim_jax.convert.weights import POSITIONS, Weights
from localmim_jax.errors import ConfigError
from localmim_jax.method.localmim import LocalMIM
from localmim_jax.models.classifier import Classifier
from localmim_jax.models.vit import ViTConfig
from tests.defaults import classifier_config, localmim_config, swin_config, target_config, vit_config

VIT = vit_config(width=64, depth=6, num_heads=4, position="learned")
SWIN = swin_config(width=16, depths=(2, 2, 4, 2), num_heads=(1, 2, 4, 8))
IMAGENET = huggingface.Pixels(parts.IMAGENET_MEAN, parts.IMAGENET_STD, 256)


def random_model(model, config):
    """(graph definition, parameters, the same as weights): drawn like trained ones, none zero and none alike."""
    graphdef, abstract, _ = trees.split(lambda rngs: model(config, rngs=rngs))
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        fan_in = np.prod(leaf.shape[:-1]) if path.endswith("kernel") else 1
        values = rng.normal(size=leaf.shape) * (fan_in**-0.5 if path.endswith("kernel") else 0.2)
        return np.float32(values + path.endswith("scale"))

    params = trees.map_with_path(draw, abstract)
    return graphdef, params, Weights(trees.flatten(params), config.describe(), "here")


def pretrained(encoder):
    """A pre-training model on this encoder, with the paper's taps and cells."""
    cells = (4, 8, 16, 32) if isinstance(encoder, ViTConfig) else (8, 16, 32, 32)
    taps = (2, 4, 5, 6) if isinstance(encoder, ViTConfig) else (1, 2, 3, 4)
    config = localmim_config(encoder, taps, target_config(cells=cells), decoder_width=16, decoder_num_heads=2)
    return random_model(LocalMIM, config)


def test_what_the_config_says(tmp_path):
    _, _, weights = pretrained(VIT)
    arrays, config, plain = huggingface.export(weights)
    assert not plain
    assert config["architectures"] == ["ViTModel"]
    assert {key: config[key] for key in ("hidden_size", "num_hidden_layers", "intermediate_size", "patch_size")} == {
        "hidden_size": 64,
        "num_hidden_layers": 6,
        "intermediate_size": 256,
        "patch_size": 16,
    }
    np.testing.assert_array_equal(arrays["layernorm.weight"], weights.arrays["decoders/3/norm/scale"])
    kernel = weights.arrays["encoder/blocks/2/attention/qkv/kernel"]
    np.testing.assert_array_equal(arrays["encoder.layer.2.attention.attention.value.weight"], kernel[:, 128:].T)
    written = huggingface.write(tmp_path / "x", arrays, config, IMAGENET)
    assert [path.name for path in written] == ["model.safetensors", "config.json", "preprocessor_config.json"]
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == sorted(path.name for path in written)
    pixels = json.loads(written[2].read_text())
    assert (pixels["size"], pixels["crop_size"]) == ({"shortest_edge": 256}, {"height": 224, "width": 224})
    with pytest.raises(ConfigError, match="is not an empty directory"):
        huggingface.write(tmp_path / "x", arrays, config, IMAGENET)


def test_files_of_others_are_normalized_as_recipes_normalize():
    assert (huggingface.IMAGENET_MEAN, huggingface.IMAGENET_STD) == (parts.IMAGENET_MEAN, parts.IMAGENET_STD)


def test_the_config_of_a_swin():
    _, _, weights = pretrained(SWIN)
    arrays, config, _ = huggingface.export(weights)
    shown = {key: config[key] for key in ("embed_dim", "depths", "num_heads", "window_size", "mlp_ratio", "image_size")}
    assert shown == {
        "embed_dim": 16,
        "depths": [2, 2, 4, 2],
        "num_heads": [1, 2, 4, 8],
        "window_size": 7,
        "mlp_ratio": 4.0,
        "image_size": 224,
    }
    assert arrays["layernorm.weight"].shape == (128,)
    assert "encoder.layers.2.blocks.3.attention.self.relative_position_bias_table" in arrays


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (classifier_config(encoder=VIT, num_classes=3), r"here: its head reads the mean .* model\.pool=class"),
        (classifier_config(encoder=SWIN, num_classes=3), r"pools before the norm .* model\.head_order=norm_pool"),
        (
            classifier_config(
                encoder=swin_config(width=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1), window=14),
                num_classes=3,
                head_order="norm_pool",
            ),
            "has windows of .* one size",
        ),
    ],
)
def test_what_transformers_cannot_express(config, message):
    with pytest.raises(ConfigError, match=message):
        huggingface.export(random_model(Classifier, config)[2])


def test_an_encoder_without_a_norm_gets_a_plain_one():
    _, _, weights = random_model(Classifier, classifier_config(encoder=VIT, num_classes=3))
    arrays, _, plain = huggingface.export(only_encoder(weights))
    assert plain
    assert (arrays["layernorm.weight"] == 1).all()
    assert (arrays["layernorm.bias"] == 0).all()
    assert arrays["layernorm.bias"].shape == (64,)


@pytest.fixture(scope="module")
def photo():
    """A real photograph, uint8 [512, 512, 3]."""
    from skimage import data

    return data.astronaut()


@pytest.fixture(scope="module")
def pixels(photo):
    """Two crops of it, normalized as for ImageNet: float32 [2, 224, 224, 3]."""
    crops = np.stack([photo[:224, 100:324], photo[200:424, 200:424]])
    return ((crops / np.float32(255) - np.float32(IMAGENET.mean)) / np.float32(IMAGENET.std)).astype(np.float32)


def loaded(auto, weights, directory, **arguments):
    """What a user of Transformers gets from the directory; nothing in it may be missing or left over."""
    arrays, config, _ = huggingface.export(weights)
    huggingface.write(directory, arrays, config, IMAGENET)
    model, report = auto.from_pretrained(directory, output_loading_info=True, **arguments)
    assert not report["missing_keys"], report
    assert not report["unexpected_keys"], report
    assert not report["mismatched_keys"], report
    return model.eval()


@pytest.mark.torch
@pytest.mark.parametrize("encoder", [VIT, SWIN], ids=["vit", "swin"])
def test_transformers_gives_the_same_features(torch, transformers, pixels, tmp_path, encoder):
    """Pre-trained encoders: the pooled, normalized feature that k-NN reads, to 1e-4."""
    graphdef, params, weights = pretrained(encoder)
    vit = encoder is VIT
    if vit:
        weights.arrays.setdefault(POSITIONS, params["encoder"]["position_embedding"])
    theirs = loaded(transformers.AutoModel, weights, tmp_path / "x", **({"add_pooling_layer": False} if vit else {}))
    with torch.no_grad():
        tokens = theirs(torch.from_numpy(pixels).permute(0, 3, 1, 2)).last_hidden_state.numpy()
    expected = tokens[:, 1:].mean(axis=1) if vit else tokens.mean(axis=1)
    found = jax.jit(lambda params, images: trees.merge(graphdef, params).features(images))(params, pixels)
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.torch
@pytest.mark.parametrize("family", ["vit", "swin"])
def test_transformers_gives_the_same_logits(torch, transformers, pixels, tmp_path, family):
    config = {
        "vit": classifier_config(encoder=VIT, num_classes=10, pool="class"),
        "swin": classifier_config(encoder=SWIN, num_classes=10, head_order="norm_pool"),
    }[family]
    graphdef, params, weights = random_model(Classifier, config)
    theirs = loaded(transformers.AutoModelForImageClassification, weights, tmp_path / "x")
    assert theirs.config.num_labels == 10
    with torch.no_grad():
        expected = theirs(torch.from_numpy(pixels).permute(0, 3, 1, 2)).logits.numpy()
    found = jax.jit(lambda params, images: trees.merge(graphdef, params)(images))(params, pixels)
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(found, expected, atol=1e-4)


SQUASHED = huggingface.Pixels(parts.IMAGENET_MEAN, parts.IMAGENET_STD, 224, "bilinear", True)


@pytest.mark.torch
@pytest.mark.parametrize("pixels", [IMAGENET, SQUASHED])
def test_transformers_prepares_images_as_evaluation_does(transformers, photo, tmp_path, pixels):
    """Its resampling rounds otherwise: at most two gray levels apart anywhere, a fifth on average."""
    from localmim_jax.data.augment import EvalTransform

    _, _, weights = pretrained(VIT)
    arrays, config, _ = huggingface.export(weights)
    huggingface.write(tmp_path / "x", arrays, config, pixels)
    photo = photo[:400, :300]
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "x")
    theirs = np.asarray(processor(images=photo, return_tensors="np")["pixel_values"])[0].transpose(1, 2, 0)
    theirs = (theirs * np.float32(pixels.std) + np.float32(pixels.mean)) * 255
    transform = EvalTransform((224, 224), 3, pixels.resize, pixels.interpolation, pixels.squash)
    ours = transform({"image": encoded(photo)}, np.random.default_rng(0))["image"]
    difference = np.abs(theirs - ours.astype(np.float32))
    assert difference.max() <= 2.01
    assert difference.mean() < 0.25


def encoded(photo):
    """A PNG of it, as in a folder."""
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "PNG")
    return buffer.getvalue()
