"""PyTorch files for real, and timm's own models with our weights. Needs torch and timm: `make test-torch`."""

import argparse
import collections
import pickle
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from localmim_jax import params as trees
from localmim_jax.cli.convert import convert
from localmim_jax.convert import files, interpolate, torch_io
from localmim_jax.convert.export import export, only_encoder
from localmim_jax.convert.recognize import recognize
from localmim_jax.convert.weights import POSITIONS, Weights, info_to_json
from localmim_jax.errors import ConfigError, DataError
from localmim_jax.models.classifier import Classifier
from localmim_jax.models.info import ModelInfo
from localmim_jax.models.swin import Swin
from tests.defaults import classifier_config, swin_config, vit_config
from tests.oracle import PretrainOracle

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def timm(timm):
    return timm.models


@pytest.fixture(scope="module")
def photo():
    """Two crops of a real photograph, normalized as for ImageNet: float32 [2, 224, 224, 3]."""
    from skimage import data

    picture = data.astronaut() / np.float32(255)
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    return np.stack([(picture[y : y + 224, x : x + 224] - mean) / std for y, x in ((0, 100), (200, 200))])


def released(torch, goldens, name, buffers=()):
    """The content of a file of the release: tensors, optimizer state, scaler, epoch and the command line."""
    arrays, _ = files.read(goldens / f"{name}.npz")
    model = collections.OrderedDict(
        (key, torch.from_numpy(array)) for key, array in {**arrays, **dict(buffers)}.items()
    )
    optimizer = {"state": {0: {"step": torch.tensor(7.0), "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
    args = argparse.Namespace(batch_size=64, input_size=224, model="mim", mask_ratio=0.75, lr=None, dist_on_itp=False)
    return {"model": model, "optimizer": optimizer, "epoch": 99, "scaler": {"scale": 65536.0}, "args": args}


@pytest.mark.parametrize("name", ["vit_hog9", "vit_hog18_bias", "vit_classifier", "swin_hog15", "swin_classifier"])
def test_release_to_ours_to_release_is_exact(torch, goldens, tmp_path, name):
    """.pth -> a checkpoint of ours -> .pth: every tensor has the same name, shape, type and bits."""
    content = released(torch, goldens, name)
    if name == "swin_classifier":  # the release's fine-tuned Swin stores indices and masks, too
        weights = recognize({k: v.numpy() for k, v in content["model"].items()}, {"args": {"input_size": 224}}, name)
        buffers = {k: v for k, v in export(weights, "release")[0].items() if k not in content["model"]}
        assert len(buffers) == 10 + 4
        content = released(torch, goldens, name, buffers)
    torch.save(content, tmp_path / "a.pth")
    convert(str(tmp_path / "a.pth"), str(tmp_path / "ours"))
    convert(str(tmp_path / "ours"), str(tmp_path / "b.pth"))
    again = torch.load(tmp_path / "b.pth", weights_only=True)["model"]
    assert sorted(again) == sorted(content["model"])
    for key, tensor in content["model"].items():
        assert again[key].dtype == tensor.dtype, key
        assert torch.equal(again[key], tensor), key


def test_other_forms_of_files(torch, goldens, tmp_path):
    """Tensors alone, under `state_dict`, in torch's older format, in bfloat16."""
    expected, _ = files.read(goldens / "vit_classifier.npz")
    model = {key: torch.from_numpy(array) for key, array in expected.items()}
    torch.save(model, tmp_path / "a.pth")
    torch.save({"state_dict": model, "epoch": 3}, tmp_path / "b.pth.tar")
    torch.save({"model": model}, tmp_path / "c.pt", _use_new_zipfile_serialization=False)
    for path in sorted(tmp_path.iterdir()):
        found, _ = files.read(path)
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[key], array) for key, array in expected.items())
    torch.save({key: tensor.bfloat16() for key, tensor in model.items()}, tmp_path / "d.pth")
    found, _ = files.read(tmp_path / "d.pth")
    np.testing.assert_array_equal(found["head.weight"], model["head.weight"].bfloat16().float().numpy())


def test_the_image_size_of_a_swin_comes_from_its_command_line(torch, goldens, tmp_path):
    torch.save(released(torch, goldens, "swin_classifier"), tmp_path / "a.pth")
    assert recognize(*files.read(tmp_path / "a.pth"), "a").info.image_size == (224, 224)


class Payload:
    """Leaves a file behind if it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("where", ["model", "args", "inside args", "top"])
@pytest.mark.parametrize("new_format", [True, False])
def test_code_in_a_file_is_refused_and_never_runs(torch, goldens, tmp_path, where, new_format):
    trace, path = tmp_path / "trace", tmp_path / "x.pth"
    content = released(torch, goldens, "vit_classifier")
    match where:
        case "model":
            content["model"]["head.weight"] = Payload(trace)
        case "args":
            content["args"] = Payload(trace)
        case "inside args":
            content["args"].lr = Payload(trace)
        case "top":
            content = Payload(trace)
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    with pytest.raises(DataError, match=r"holds a (io|_io|builtins)\.open, which is more than data") as error:
        files.read(path)
    assert "\n" not in str(error.value)
    assert not trace.exists()


@pytest.mark.filterwarnings("ignore")
def test_a_bare_pickle_is_refused(tmp_path):
    trace, path = tmp_path / "trace", tmp_path / "x.pth"
    path.write_bytes(pickle.dumps({"model": Payload(trace)}))
    with pytest.raises(DataError, match=r"x\.pth"):
        files.read(path)
    assert not trace.exists()


@pytest.mark.parametrize("extra", [np.float64(0.5), torch_io.Path("/x"), ConfigError("x")])
def test_nothing_but_a_namespace_is_allowed(torch, goldens, tmp_path, extra):
    content = released(torch, goldens, "vit_classifier")
    content["args"].extra = extra
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(DataError, match="which is more than data"):
        files.read(tmp_path / "x.pth")


def test_truncated_and_damaged_files(torch, goldens, tmp_path):
    path = tmp_path / "x.pth"
    torch.save(released(torch, goldens, "vit_classifier"), path)
    whole = path.read_bytes()
    for content in (b"", whole[:100], whole[: len(whole) // 2], whole[:-1], b"<html></html>", whole[100:]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"x\.pth.* damaged") as error:
            files.read(path)
        assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore")
def test_files_with_something_else(torch, tmp_path):
    path = tmp_path / "x.pth"
    for content, message in (
        ([1, 2], "holds a list instead of a dict of tensors"),
        ({"epoch": 3}, "holds no tensors"),
        ({"model": {"a": torch.zeros(2), "b": "text"}}, "entries that are no tensors: b"),
        ({"a": torch.zeros(2, 2).to_sparse()}, "a is not a plain dense tensor"),
        ({"a": torch.zeros(2, dtype=torch.complex64)}, "a is not a plain dense tensor"),
        ({"a": torch.quantize_per_tensor(torch.zeros(2), 1.0, 0, torch.qint8)}, "a is not a plain dense tensor"),
        ({"a": torch.zeros(2, dtype=torch.float8_e4m3fn)}, "which numpy does not know"),
    ):
        torch.save(content, path)
        with pytest.raises(DataError, match=message):
            files.read(path)


def test_bombs(torch, tmp_path):
    """A few bytes that would unfold to terabytes: as an expanded tensor, and as a compressed archive."""
    torch.save({"a": torch.zeros(1).expand(2**40)}, tmp_path / "x.pth")
    assert (tmp_path / "x.pth").stat().st_size < 10_000
    with pytest.raises(DataError, match="unfolds to 4,398,046,511,104 bytes of tensors"):
        files.read(tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "y.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**24))
    with pytest.raises(DataError, match="unpacks to 16,777,216 bytes"):
        files.read(tmp_path / "y.pth", max_bytes=2**20)


def test_an_old_torch_is_refused(torch, goldens, tmp_path, monkeypatch):
    torch.save(released(torch, goldens, "vit_classifier"), tmp_path / "x.pth")
    for version in ("2.9.1+cpu", "1.13.0"):
        monkeypatch.setattr(torch, "__version__", version)
        with pytest.raises(ConfigError, match=r"cannot read untrusted files safely: pip install --upgrade"):
            files.read(tmp_path / "x.pth")
    monkeypatch.setattr(torch, "__version__", "2.10.0")
    files.read(tmp_path / "x.pth")


@pytest.mark.parametrize("method", ["bicubic", "bilinear"])
def test_interpolation_equals_torch(torch, method):
    rng = np.random.default_rng(0)
    for grid, new in (((14, 14), (24, 24)), ((14, 14), (12, 16)), ((3, 5), (8, 2)), ((7, 7), (1, 30))):
        table = rng.normal(size=(grid[0] * grid[1], 3)).astype(np.float32)
        planes = torch.from_numpy(table.reshape(1, *grid, 3)).permute(0, 3, 1, 2)
        expected = torch.nn.functional.interpolate(planes, size=new, mode=method, align_corners=False)
        found = interpolate.resize_grid(table, grid, new, method)
        np.testing.assert_allclose(found, expected[0].permute(1, 2, 0).reshape(-1, 3).numpy(), atol=1e-5)


def random_classifier(config):
    """(graph definition, parameters, the same as weights): drawn like trained ones, none zero and none alike."""
    graphdef, abstract, _ = trees.split(lambda rngs: Classifier(config, rngs=rngs))
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        fan_in = np.prod(leaf.shape[:-1]) if path.endswith("kernel") else 1
        values = rng.normal(size=leaf.shape) * (fan_in**-0.5 if path.endswith("kernel") else 0.2)
        return np.float32(values + path.endswith("scale"))

    params = trees.map_with_path(draw, abstract)
    return graphdef, params, Weights(trees.flatten(params), config.describe(), "here")


def through_a_file(torch, weights, path):
    """A state dict as timm's users get it: exported to safetensors and read back."""
    arrays, info = export(weights, "timm")
    files.write(path, arrays, info_to_json(info))
    return {name: torch.from_numpy(array) for name, array in files.read(path)[0].items()}


@pytest.mark.parametrize(("pool", "global_pool"), [("mean", "avg"), ("class", "token")])
def test_timms_vit_gives_the_same_logits(torch, timm, photo, tmp_path, pool, global_pool):
    encoder = vit_config(width=64, depth=4, num_heads=4, position="learned")
    config = classifier_config(encoder=encoder, num_classes=10, pool=pool)
    graphdef, params, weights = random_classifier(config)
    theirs = timm.vision_transformer.VisionTransformer(
        img_size=224, patch_size=16, embed_dim=64, depth=4, num_heads=4, num_classes=10, global_pool=global_pool
    )
    theirs.load_state_dict(through_a_file(torch, weights, tmp_path / "x.safetensors"), strict=True)
    with torch.no_grad():
        expected = theirs.eval()(torch.from_numpy(photo).permute(0, 3, 1, 2)).numpy()
    found = jax.jit(lambda params, images: trees.merge(graphdef, params)(images))(params, photo)
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_timms_vit_gives_the_features_of_a_pretraining_model(torch, timm, goldens, tmp_path):
    """Loaded strictly, without a head: the last tap's norm is the final one."""
    oracle = PretrainOracle("vit_hog9")
    graphdef, params = oracle.params()
    arrays = trees.flatten(params) | {POSITIONS: oracle.config.encoder.position_table()}
    state = through_a_file(torch, Weights(arrays, oracle.config.describe(), "here"), tmp_path / "x.safetensors")
    theirs = timm.vision_transformer.VisionTransformer(
        img_size=64, patch_size=16, embed_dim=32, depth=8, num_heads=4, num_classes=0, global_pool="token"
    )
    theirs.load_state_dict(state, strict=True)
    with torch.no_grad():
        tokens = theirs.eval().forward_features(torch.from_numpy(np.array(oracle.images)).permute(0, 3, 1, 2)).numpy()
    found = jax.jit(lambda params, images: trees.merge(graphdef, params).features(images))(params, oracle.images)
    np.testing.assert_allclose(found, tokens[:, 1:].mean(axis=1), atol=1e-4)


SWIN = swin_config(width=16, depths=(2, 2, 4, 2), num_heads=(1, 2, 4, 8))


def timms_swin(timm, epsilon2=1e-6, **changes):
    """timm's Swin with our epsilons."""
    model = timm.swin_transformer.SwinTransformer(
        img_size=224, embed_dim=16, depths=(2, 2, 4, 2), num_heads=(1, 2, 4, 8), window_size=7, **changes
    )
    for name, module in model.named_modules():
        if hasattr(module, "eps"):
            module.eps = epsilon2 if name.endswith("norm2") else 1e-6
    return model.eval()


def test_timms_swin_gives_the_same_logits(torch, timm, photo, tmp_path):
    """With the norm before the pooling, as timm has it."""
    config = classifier_config(encoder=SWIN, num_classes=10, head_order="norm_pool")
    graphdef, params, weights = random_classifier(config)
    theirs = timms_swin(timm, num_classes=10)
    theirs.load_state_dict(through_a_file(torch, weights, tmp_path / "x.safetensors"), strict=True)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(photo).permute(0, 3, 1, 2)).numpy()
    found = jax.jit(lambda params, images: trees.merge(graphdef, params)(images))(params, photo)
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_timms_swin_gives_the_same_last_map_for_the_releases_classifier(torch, timm, goldens, photo, tmp_path):
    """The release's trained-like weights, whose head timm cannot express: stage 4, before any norm."""
    weights = recognize(*files.read(goldens / "swin_classifier.npz"), "swin")
    state = through_a_file(torch, only_encoder(weights), tmp_path / "x.safetensors")
    theirs = timm.swin_transformer.SwinTransformer(
        img_size=224, embed_dim=8, depths=(2, 2, 4, 2), num_heads=(1, 2, 4, 8), window_size=7, num_classes=0
    )
    for name, module in theirs.named_modules():
        if hasattr(module, "eps"):
            module.eps = 1e-5 if name.endswith("norm2") else 1e-6
    theirs.load_state_dict(state, strict=True)  # with a final norm of scale 1 and bias 0, unused here
    with torch.no_grad():
        x = theirs.eval().patch_embed(torch.from_numpy(photo).permute(0, 3, 1, 2))
        expected = theirs.layers(x).numpy()
    config = swin_config(width=8, depths=(2, 2, 4, 2), num_heads=(1, 2, 4, 8), epsilon2=1e-5)
    graphdef, _, _ = trees.split(lambda rngs: nnx.Dict(encoder=Swin(config, rngs=rngs)))
    params = trees.unflatten({p: jnp.asarray(a) for p, a in weights.arrays.items() if p.startswith("encoder/")})
    (found,) = jax.jit(lambda params, images: trees.merge(graphdef, params).encoder(images, taps=(4,)))(params, photo)
    np.testing.assert_allclose(found.reshape(2, 7, 7, 64), expected, atol=1e-4)


def test_timms_own_files_are_read(torch, timm, photo, tmp_path):
    """A model of timm's, saved by torch, in ours."""
    theirs = timms_swin(timm, num_classes=10)
    torch.save(theirs.state_dict(), tmp_path / "timm.pth")
    weights = recognize(*files.read(tmp_path / "timm.pth"), "timm")
    assert weights.info == ModelInfo("swin", "classifier", None, (1, 2, 4, 8), pool="mean", head_order="norm_pool")
    assert weights.unexpected == {}
    config = classifier_config(encoder=SWIN, num_classes=10, head_order="norm_pool")
    graphdef, abstract, _ = trees.split(lambda rngs: Classifier(config, rngs=rngs))
    assert {path: array.shape for path, array in weights.arrays.items()} == {
        path: leaf.shape for path, leaf in trees.flatten(abstract).items()
    }
    params = trees.unflatten(weights.arrays)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(photo).permute(0, 3, 1, 2)).numpy()
    found = jax.jit(lambda params, images: trees.merge(graphdef, params)(images))(params, photo)
    np.testing.assert_allclose(found, expected, atol=1e-4)
