"""`localmim convert` from a run of ours, through files, and back."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from localmim_jax import params as trees
from localmim_jax.build import build_task
from localmim_jax.cli import convert as command
from localmim_jax.cli import program
from localmim_jax.cli.convert import convert
from localmim_jax.configs import parts
from localmim_jax.convert import files, onnx_io
from localmim_jax.convert.weights import info_from_json
from localmim_jax.engine.checkpoints.write import Checkpointer
from localmim_jax.errors import ConfigError, DataError
from localmim_jax.method.localmim import LocalMIM
from localmim_jax.models.classifier import Classifier
from localmim_jax.recipes.override import record
from localmim_jax.tasks import from_config, initialize
from tests.defaults import checkpoint_settings
from tests.shrink import shrink

ROOT = initialize.__file__.rsplit("/localmim_jax/", 1)[0]


def save_run(directory, config, model, **state):
    """A run directory as the engine leaves it, with random parameters."""

    def random(path, leaf):
        return np.random.default_rng(len(path)).normal(size=leaf.shape).astype(np.float32)

    _, params, model_state = trees.split(lambda rngs: model(rngs))
    checkpointer = Checkpointer(directory / "checkpoints", checkpoint_settings())
    state = {"model_state": trees.map_with_path(random, model_state), "ema": {}, **state}
    checkpointer.save(3, {"params": trees.map_with_path(random, params), "step": np.int32(3), **state})
    checkpointer.close()
    (directory / "config.json").write_text(json.dumps(record(config)))


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A run with HOG targets of 18 bins and the release's frozen biases."""
    directory = tmp_path_factory.mktemp("pretrained")
    config = shrink(parts.pretrain(parts.vit("vit_b")))
    bias = directory / "bias.npz"
    np.savez(bias, **{f"hog_enc.{k}.conv.bias": np.float32([k, -0.25]) for k in range(4)})
    config.model.target.hog_bias = str(bias)
    model = from_config.localmim_config(config)
    save_run(directory, config, lambda rngs: LocalMIM(model, rngs=rngs))
    return directory


def test_a_pretraining_run_goes_round(pretrained, tmp_path):
    """run -> the release's names -> a checkpoint for init_from -> npz: the same arrays and the same description."""
    lines = convert(str(pretrained), str(tmp_path / "a.safetensors"), names="release")
    assert lines[0].startswith(f"read     {pretrained}: vit, pretrain, ")
    released, extra = files.read(tmp_path / "a.safetensors")
    assert {"decoder.3.pred.1.weight", "hog_enc.0.conv.weight", "decoder.0.pos_embed", "pos_embed"} <= set(released)
    np.testing.assert_array_equal(released["hog_enc.2.conv.bias"], np.float32([2, -0.25]))
    lines = convert(str(tmp_path / "a.safetensors"), str(tmp_path / "b"))
    assert any("ignored  4 x fixed gradient filters: hog_enc.0.conv.weight" in line for line in lines)
    bias = tmp_path / "b_hog_bias.npz"
    assert lines[-1].endswith(f"--config.model.target.hog_bias={bias}")
    assert from_config.read_hog_bias(str(bias)) == ((0.0, -0.25), (1.0, -0.25), (2.0, -0.25), (3.0, -0.25))
    original, again = initialize.read(str(pretrained)), initialize.read(str(tmp_path / "b"))
    assert again.info == info_from_json(extra["info"], "")
    assert again.info == original.info
    assert original.arrays.keys() == again.arrays.keys()
    for path, array in original.arrays.items():
        np.testing.assert_array_equal(again.arrays[path], array, err_msg=path)


def test_pretraining_can_start_from_a_file(pretrained, tmp_path):
    convert(str(pretrained), str(tmp_path / "x.npz"))
    config = shrink(parts.pretrain(parts.vit("vit_b")))
    config.checkpoint.init_from = str(tmp_path / "x.npz")
    task, _ = build_task(config, "")
    _, abstract, _ = trees.split(task.make_model)
    own = trees.map_with_path(lambda path, leaf: np.zeros(leaf.shape, np.float32), abstract)
    params, _ = task.init_from(own, {})
    expected = initialize.read(str(pretrained)).arrays
    for path, array in trees.flatten(params).items():
        np.testing.assert_array_equal(array, expected[path], err_msg=path)


def test_weights_that_were_never_trained_are_remarked_upon(goldens, tmp_path, caplog):
    initialize.read(str(goldens / "swin_classifier.npz"))
    assert "looks untrained" not in caplog.text
    arrays, _ = files.read(goldens / "swin_classifier.npz")
    for name in arrays:
        if "norm" in name and not name.startswith("norm"):
            arrays[name] = np.full_like(arrays[name], name.endswith("weight"))
    np.savez(tmp_path / "x.npz", **arrays)
    initialize.read(str(tmp_path / "x.npz"))
    assert "x.npz looks untrained" in caplog.text


def test_the_moving_average_is_what_is_exported(pretrained, tmp_path):
    config = shrink(parts.pretrain(parts.vit("vit_b")))
    model = from_config.localmim_config(config)
    average = {"encoder": {"class_token": np.full(32, 0.5, np.float32)}}
    save_run(tmp_path / "run", config, lambda rngs: LocalMIM(model, rngs=rngs), ema=average)
    convert(str(tmp_path / "run"), str(tmp_path / "x.npz"), part="encoder")
    arrays, _ = files.read(tmp_path / "x.npz")
    assert (arrays["encoder/class_token"] == 0.5).all()
    assert all(path.startswith("encoder/") for path in arrays)
    assert not (arrays["encoder/patch_embed/bias"] == 0.5).any()


def test_a_probes_batch_norm_becomes_part_of_its_head(tmp_path):
    config = shrink(parts.linear_probe(parts.vit("vit_b")))
    config.model.dtype = "float32"
    config.model.update({"num_classes": 5, "depth": 1})
    model = from_config.classifier_config(config)
    statistics = {"mean": np.linspace(-1, 1, 32, dtype=np.float32), "var": np.linspace(0.1, 2, 32, dtype=np.float32)}
    save_run(
        tmp_path / "run", config, lambda rngs: Classifier(model, rngs=rngs), model_state={"batch_norm": statistics}
    )
    weights = initialize.read(str(tmp_path / "run"))
    raw = initialize.load_params(tmp_path / "run")
    graphdef, _, _ = trees.split(lambda rngs: Classifier(model, rngs=rngs))
    plain = {"batch_norm": {"mean": np.zeros(32, np.float32), "var": np.ones(32, np.float32) - np.float32(1e-6)}}
    images = jax.random.normal(jax.random.key(0), (2, *config.image_size, 3))

    @jax.jit
    def logits(params, state):
        return trees.merge(graphdef, params, state)(images)

    expected = logits(raw, {"batch_norm": statistics})
    found = logits(trees.unflatten(weights.arrays), plain)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ConfigError, match="normalizes before it pools"):
        convert(str(tmp_path / "run"), str(tmp_path / "x.npz"), names="timm")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"names": "keras"}, ConfigError, "--names=keras: it must be one of localmim, release, timm, tr"),
        ({"target": "b", "names": "release"}, ConfigError, "is a directory, which the release does not read: give a s"),
        ({"names": "transformers"}, ConfigError, "writes a directory; give a name without a suffix"),
        ({"target": "b.zip", "source": "missing.npz"}, ConfigError, "unknown suffix"),  # the target is looked at first
        ({"source": "missing.npz"}, DataError, "no such file"),
        ({"source": "."}, DataError, "does not belong to a run"),
        ({"source": "nowhere"}, DataError, "nowhere: no such file or run directory"),
        ({"source": "https://example.org/x.pth"}, ConfigError, "fetch the file"),
    ],
)
def test_what_cannot_be_converted(pretrained, tmp_path, monkeypatch, arguments, error, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        convert(**({"source": str(pretrained), "target": "b.npz"} | arguments))
    assert list(tmp_path.iterdir()) == []


def test_a_directory_for_transformers(pretrained, tmp_path):
    lines = convert(str(pretrained), str(tmp_path / "x"), names="transformers")
    assert "Transformers' ViTModel" in lines[1]
    assert json.loads((tmp_path / "x" / "config.json").read_text())["image_size"] == 32
    pixels = json.loads((tmp_path / "x" / "preprocessor_config.json").read_text())
    assert pixels["size"] == {"shortest_edge": 32}  # eval.knn.resize of the run
    assert pixels["image_mean"] == list(parts.IMAGENET_MEAN)
    lines = convert(str(pretrained), str(tmp_path / "y"), names="transformers", part="encoder")
    assert lines[-1].startswith("note     no norm follows the encoder")
    again = initialize.read(str(tmp_path / "x"))
    assert (again.info.kind, again.info.image_size, again.info.epsilon) == ("encoder", (32, 32), 1e-6)
    original = initialize.read(str(pretrained)).arrays
    for path in (path for path in again.arrays if path.startswith("encoder/")):
        np.testing.assert_array_equal(again.arrays[path], original[path], err_msg=path)


def test_the_order_of_a_head_whose_names_do_not_tell(goldens, pretrained, tmp_path):
    """The original Swin has the release's names and timm's order."""
    source = str(goldens / "swin_classifier.npz")
    with pytest.raises(ConfigError, match="pools before the norm"):
        convert(source, str(tmp_path / "x.npz"), names="timm")
    lines = convert(source, str(tmp_path / "x.npz"), names="timm", head_order="norm_pool")
    assert not any(line.startswith("note") for line in lines)
    assert any("its names do not tell" in line for line in convert(source, str(tmp_path / "w.npz")))
    assert not any(line.startswith("note") for line in convert(source, str(tmp_path / "v.npz"), part="encoder"))
    lines = convert(str(tmp_path / "x.npz"), str(tmp_path / "z.npz"), head_order="pool_norm")
    assert "note     --head_order=pool_norm, although the source has norm_pool: the logits will differ" in lines
    assert initialize.read(str(tmp_path / "z.npz")).info.head_order == "pool_norm"
    assert initialize.read(str(tmp_path / "x.npz")).info.head_order == "norm_pool"
    with pytest.raises(ConfigError, match="has no classification head"):
        convert(str(pretrained), str(tmp_path / "y.npz"), head_order="norm_pool")


def test_flags_that_change_nothing_are_said(goldens, pretrained, tmp_path):
    lines = convert(str(pretrained), str(tmp_path / "x.npz"), standard_merging=True, config=parts.vit("vit_b"))
    assert sum(line.startswith("note") and "has no effect" in line for line in lines) == 2
    lines = convert(str(goldens / "swin_hog15.npz"), str(tmp_path / "y.npz"), standard_merging=True)
    assert not any(line.startswith("note") for line in lines)


@pytest.mark.parametrize("name", ["vit_b.v2", "lr_0.5", "2024.11.28", "x.npz/", "run.PTH/"])
def test_a_directory_may_have_a_dot_in_its_name(goldens, tmp_path, name):
    source = str(goldens / "vit_classifier.npz")
    convert(source, f"{tmp_path}/{name}")
    assert (tmp_path / name / "checkpoints").is_dir()
    assert initialize.read(f"{tmp_path}/{name}").info.kind == "classifier"


def test_what_is_a_directory_already_is_meant_as_one(goldens, tmp_path):
    (tmp_path / "y.npz").mkdir()
    convert(str(goldens / "vit_classifier.npz"), str(tmp_path / "y.npz"))
    assert (tmp_path / "y.npz" / "model.json").is_file()


def test_what_lies_beside_a_directory_with_a_dot(pretrained, tmp_path):
    lines = convert(str(pretrained), str(tmp_path / "vit.v2"))
    assert lines[-1].startswith(f"written  {tmp_path / 'vit.v2_hog_bias.npz'}")


@pytest.mark.parametrize("name", ["x.h5", "x.zip", "x.json", "x.safetensor"])
def test_other_formats_are_refused_before_anything_is_read(tmp_path, name):
    with pytest.raises(ConfigError, match=r"unknown suffix; weights are written to \.npz"):
        convert("missing.npz", str(tmp_path / name))


def test_onnx_without_its_libraries_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_io.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="jax2onnx, onnxruntime is missing, which"):
        convert("missing.npz", str(tmp_path / "x.onnx"))


def test_a_directory_with_something_in_it_is_left_alone(pretrained, tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ConfigError, match="not an empty directory"):
        convert("missing.npz", str(tmp_path))
    with pytest.raises(ConfigError, match="not an empty directory"):
        convert(str(pretrained), str(tmp_path), names="transformers")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_pytorch_files_need_torch(pretrained, tmp_path, monkeypatch):
    monkeypatch.setattr(initialize, "read", lambda *_: pytest.fail("the source was read"))
    monkeypatch.setattr(files.torch_io.importlib.util, "find_spec", lambda name: None)
    (tmp_path / "x.pth").write_bytes(b"PK")
    for source, target in ((pretrained, "y.pth"), (tmp_path / "x.pth", "y.npz")):
        with pytest.raises(ConfigError, match=r"pip install 'localmim-jax\[torch\]'"):
            convert(str(source), str(tmp_path / target))


def test_from_the_command_line(goldens, tmp_path):
    program = [sys.executable, "-m", "localmim_jax", "convert"]
    source = goldens / "vit_classifier.npz"
    done = subprocess.run(
        [*program, f"--source={source}", f"--target={tmp_path / 'x.npz'}"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "written" in done.stdout
    assert "sha256" in done.stderr
    done = subprocess.run([*program, "--source=x.npz"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        2,
        "localmim convert: no --target given; for example --target=vit_b.npz\n",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target=y.npz"], "no --source given"),
        (["--source=x.npz", "--target=y.npz", "--part=head"], "--part=head: it must be one of all, encoder"),
        (["--source=x.npz", "--target=y.npz", "--head_order=norm"], "it must be one of pool_norm, norm_pool"),
    ],
)
def test_flags(arguments, message):
    with pytest.raises(ConfigError, match=message):
        command.main(program.parse(arguments, command.define_flags))
