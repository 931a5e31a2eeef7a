"""ONNX files against the models that they came from, with onnxruntime (`make test-torch`), and what is refused."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from localmim_jax.api import load
from localmim_jax.cli.convert import convert
from localmim_jax.configs import parts
from localmim_jax.errors import ConfigError
from localmim_jax.method.localmim import LocalMIM
from localmim_jax.models.classifier import Classifier
from localmim_jax.params import merge
from localmim_jax.tasks import from_config
from tests.shrink import shrink
from tests.test_convert_command import save_run

RECIPES = {
    "vit": lambda: shrink(parts.pretrain(parts.vit("vit_b"))),
    "swin": lambda: shrink(parts.pretrain(parts.swin("swin_b"))),
    "classifier": lambda: shrink(parts.finetune(parts.vit("vit_b"))),
}


def saved(directory, name):
    """A run directory of a tiny model with random parameters; returns its config."""
    config = RECIPES[name]()
    config.image_size = (64, 96)
    if config.task == "pretrain":
        model = from_config.localmim_config(config)
        save_run(directory, config, lambda rngs: LocalMIM(model, rngs=rngs))
    else:
        classifier = from_config.classifier_config(config)
        save_run(directory, config, lambda rngs: Classifier(classifier, rngs=rngs))
    return config


@pytest.fixture
def photo():
    """A real photograph, normalized: float32 [1, 64, 96, 3]."""
    from skimage import data

    picture = data.astronaut()[:64, 200:296] / np.float32(255)
    return ((picture - np.float32(parts.IMAGENET_MEAN)) / np.float32(parts.IMAGENET_STD)).astype(np.float32)[None]


@pytest.mark.torch
@pytest.mark.parametrize(
    ("name", "part", "output"),
    [
        ("vit", "all", "features"),
        ("vit", "encoder", "tokens"),
        ("swin", "all", "features"),
        ("classifier", "all", "logits"),
    ],
)
def test_onnxruntime_gives_the_same(photo, tmp_path, name, part, output):
    import onnxruntime

    config = saved(tmp_path / "run", name)
    (_, line) = convert(str(tmp_path / "run"), str(tmp_path / "x.onnx"), part=part)
    assert f"-> {output}" in line
    session = onnxruntime.InferenceSession(str(tmp_path / "x.onnx"))
    assert [value.name for value in session.get_inputs()] == ["pixel_values"]
    assert [value.name for value in session.get_outputs()] == [output]
    images = jnp.repeat(photo, 3, axis=0)
    (found,) = session.run(None, {"pixel_values": np.asarray(images.transpose(0, 3, 1, 2))})
    config.model.dtype = "float32"
    bound = load(tmp_path / "run", config).bound
    graphdef, *arrays = bound.graphdef, bound.params, bound.model_state
    model = merge(graphdef, *jax.tree.map(jnp.asarray, arrays))
    expected = {
        "features": lambda: model.features(images),
        "tokens": lambda: model.encoder(images, taps=(4,))[0],
        "logits": lambda: model(images),
    }[output]()
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(found / scale, np.asarray(expected) / scale, atol=1e-4)
    assert np.abs(found[0]).max() > 0.1


@pytest.mark.parametrize(
    ("target", "arguments", "message"),
    [
        ("x.onnx", {"names": "timm"}, "an ONNX file has no names of parameters"),
        ("x.onnx", {"source": "x.npz"}, "its model is unknown: give --config too|which .onnx files need"),
    ],
)
def test_what_is_refused(tmp_path, monkeypatch, target, arguments, message):
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "run", "vit")
    convert("run", "x.npz")
    with pytest.raises(ConfigError, match=message):
        convert(**{"source": "run", "target": target} | arguments)
    assert not (tmp_path / target).exists()


def test_without_jax2onnx(tmp_path, monkeypatch):
    saved(tmp_path / "run", "vit")
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(ConfigError, match=r"pip install --no-deps jax2onnx"):
        convert(str(tmp_path / "run"), str(tmp_path / "x.onnx"))
    assert not (tmp_path / "x.onnx").exists()
