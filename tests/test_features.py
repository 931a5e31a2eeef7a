"""`localmim features`: what it writes is what the model computes for those images."""

import base64
import csv
import io
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from localmim_jax import params as trees
from localmim_jax.api import load
from localmim_jax.cli import embedding, features, program
from localmim_jax.cli.convert import convert
from localmim_jax.configs import parts
from localmim_jax.convert import files
from localmim_jax.data.augment import EvalTransform
from localmim_jax.errors import ConfigError, DataError
from localmim_jax.method.localmim import LocalMIM
from localmim_jax.tasks import from_config
from tests.shrink import shrink
from tests.test_convert_command import save_run

NAMES = ["cats/a.png", "cats/b.jpg", "dogs/c.png"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name in NAMES:
        (root / name).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (rng.integers(40, 60), 50, 3), np.uint8)).save(root / name)
    return root


@pytest.fixture(scope="module")
def config():
    config = shrink(parts.pretrain(parts.vit("vit_b")))
    config.model.dtype = "float32"
    config.model.update({"depth": 2, "taps": (1, 2)})
    config.model.target.cells = (8, 16)
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory, config):
    directory = tmp_path_factory.mktemp("run")
    model = from_config.localmim_config(config)
    save_run(directory, config, lambda rngs: LocalMIM(model, rngs=rngs))
    return directory


@pytest.fixture(scope="module")
def expected(config, run, photos):
    """(pooled features, tokens of layer 1), of each image by itself."""
    model = from_config.localmim_config(config)
    graphdef, _, _ = trees.split(lambda rngs: LocalMIM(model, rngs=rngs))
    params = load(run, config).bound.params
    transform = EvalTransform(config.image_size, 3, config.eval.knn.resize)
    mean, std = np.float32(config.data.mean), np.float32(config.data.std)

    @jax.jit
    def compute(image):
        model = trees.merge(graphdef, params)
        return model.features(image), model.encoder(image, taps=(1,))[0]

    def one(name):
        pixels = transform({"image": (photos / name).read_bytes()}, np.random.default_rng(0))["image"]
        return compute(((pixels / np.float32(255) - mean) / std)[None])

    return [np.concatenate(arrays) for arrays in zip(*map(one, NAMES), strict=True)]


def test_features_of_a_run(photos, run, expected, tmp_path):
    features.extract(str(run), str(photos), tmp_path / "new" / "x.npz", batch_size=1)
    with np.load(tmp_path / "new" / "x.npz") as file:
        assert sorted(file.files) == ["class_names", "features", "labels", "paths", "root"]
        assert file["paths"].tolist() == NAMES
        assert file["labels"].tolist() == [0, 0, 1]
        assert file["class_names"].tolist() == ["cats", "dogs"]
        assert str(file["root"]) == str(photos)
        assert file["features"].dtype == np.float32
        np.testing.assert_allclose(file["features"], expected[0], atol=2e-5)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.npz"]


@pytest.fixture(scope="module")
def divided(photos, tmp_path_factory):
    """The photos as a training split, and one of them in a validation split that has only one class."""
    root = tmp_path_factory.mktemp("divided")
    shutil.copytree(photos, root / "train")
    (root / "valid" / "dogs").mkdir(parents=True)
    shutil.copy(photos / "dogs" / "c.png", root / "valid" / "dogs" / "d <b>.png")
    return root


def test_all_splits_of_a_folder_as_csv_and_plot(divided, run, expected, tmp_path, capsys):
    features.extract(
        str(run), str(divided), tmp_path / "x.csv", batch_size=2, plot=str(tmp_path / "plot"), method="pca"
    )
    with open(tmp_path / "x.csv", newline="") as file:
        head, *rows = csv.reader(file)
    assert head[:4] == ["path", "split", "class", "feature_0"]
    assert [row[:3] for row in rows] == [
        ["train/cats/a.png", "train", "cats"],
        ["train/cats/b.jpg", "train", "cats"],
        ["train/dogs/c.png", "train", "dogs"],
        ["valid/dogs/d <b>.png", "valid", "dogs"],
    ]
    found = np.array([row[3:] for row in rows], np.float32)
    np.testing.assert_allclose(found, np.concatenate([expected[0], expected[0][2:]]), atol=2e-5)
    with Image.open(tmp_path / "plot.png") as picture:
        assert min(picture.size) > 400
    page = (tmp_path / "plot.html").read_text()
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "d <b>" not in page
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert data["groups"] == ["cats", "dogs"]
    assert [point[2:4] for point in data["points"]][::3] == [[0, "train/cats/a.png"], [1, "valid/dogs/d <b>.png"]]
    assert data["points"][2][:2] == pytest.approx(data["points"][3][:2], abs=0.2)  # the same image
    for point in data["points"]:
        assert Image.open(io.BytesIO(base64.b64decode(point[4]))).format == "JPEG"
    assert "4 images, PCA: " in capsys.readouterr().out


def test_a_single_file(photos, run, expected, tmp_path):
    features.extract(str(run), str(photos / "dogs" / "c.png"), tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as file:
        assert sorted(file.files) == ["features", "paths", "root"]
        assert (file["paths"].tolist(), str(file["root"])) == (["c.png"], str(photos / "dogs"))
        np.testing.assert_allclose(file["features"], expected[0][2:], atol=2e-5)
    with pytest.raises(ConfigError, match="a plot needs at least two images"):
        features.extract(str(run), str(photos / "dogs" / "c.png"), tmp_path / "x.npz", plot="x")


def test_pca_is_the_projection_on_the_largest_variance():
    x = np.random.default_rng(0).normal(size=(50, 6)) * [5, 3, 0.1, 0.1, 0.1, 0.1] + 100
    places, axes = embedding.embed(x, "pca")
    centered = x - x.mean(0)
    for i in range(2):
        assert abs(np.corrcoef(places[:, i], centered[:, i])[0, 1]) > 0.99
    assert axes.startswith("PCA: ")
    assert embedding.embed(np.array([[1.0], [2.0]]), "pca")[0].shape == (2, 2)


def test_tokens_of_a_file_with_a_config(config, photos, run, expected, tmp_path):
    convert(str(run), str(tmp_path / "weights.safetensors"), names="release")
    features.extract(
        str(tmp_path / "weights.safetensors"), str(photos / "cats"), tmp_path / "x.npz", config, "tokens", layer=1
    )
    with np.load(tmp_path / "x.npz") as file:
        assert sorted(file.files) == ["paths", "root", "tokens"]
        np.testing.assert_allclose(file["tokens"], expected[1][:2], rtol=1e-4, atol=1e-3)


def test_what_cannot_be_done(config, photos, run, tmp_path):
    convert(str(run), str(tmp_path / "x.npz"))
    with pytest.raises(ConfigError, match="layers are 1 to 2"):
        features.extract(str(run), str(photos), tmp_path / "y.npz", layer=3)
    with pytest.raises(DataError, match="does not exist"):
        features.extract(str(run), str(photos / "birds"), tmp_path / "y.npz")
    arrays, _ = files.read(tmp_path / "x.npz")
    del arrays["encoder/blocks/1/mlp/fc1/bias"]
    files.write(tmp_path / "x.npz", arrays, '{"family": "vit", "kind": "pretrain"}')
    with pytest.raises(ConfigError, match="missing encoder/blocks/"):
        features.extract(str(tmp_path / "x.npz"), str(photos), tmp_path / "y.npz", config)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"<html>")
    with pytest.raises(DataError, match=r"a\.png"):
        features.extract(str(run), str(tmp_path / "broken"), tmp_path / "y.npz")
    assert not (tmp_path / "y.npz").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images=x", "--output=y.npz"], "no --checkpoint given"),
        (["--checkpoint=c", "--images=x", "--output=y"], r"must end in \.npz or \.csv"),
        (["--checkpoint=c", "--images=x", "--output=y.csv", "--kind=tokens"], "fits neither a CSV nor a plot"),
        (["--checkpoint=c", "--images=x", "--output=y.npz", "--kind=mean"], "one of features, tokens"),
        (["--checkpoint=c", "--images=x", "--output=y.npz", "--batch_size=0"], "at least 1"),
        (["--checkpoint=c", "--images=x", "--output=y.npz", "--layer=2"], "for another add --kind=tokens"),
        (
            ["--checkpoint=c", "--images=x", "--output=y.npz", "--config.seed=1"],
            "--config.seed changes a recipe, and there is no",
        ),
    ],
)
def test_flags(arguments, message):
    with pytest.raises(ConfigError, match=message):
        features.main(program.parse(arguments, features.define_flags))
