"""The analyses of finished runs from flags to files, against the same numbers computed here in another way."""

import csv
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from PIL import Image

from localmim_jax.analysis import attention, gradients, layers, shared
from localmim_jax.build import build_task
from localmim_jax.configs import quickstart
from localmim_jax.data.augment import EvalTransform
from localmim_jax.errors import ConfigError, StorageError
from localmim_jax.evals.knn import knn_accuracy
from localmim_jax.params import flatten, merge
from localmim_jax.tasks import inputs
from tests.shrink import shrink
from tests.training import train


def recipe():
    """Digits, two blocks, of which only the first is reconstructed from."""
    config = shrink(quickstart.get_config())
    config.data.update({"name": "digits", "split": "train[:64]"})
    config.batch_size, config.num_steps = 8, 4
    config.model.update({"width": 16, "depth": 2, "num_heads": 2, "taps": (1,), "dtype": "float32"})
    config.model.target.cells = (8,)
    config.checkpoint.update({"every_steps": 2, "keep_last": 5})
    config.eval.reconstruction.num_images = 0
    knn = {"enabled": False, "name": "digits", "train_split": "train[:50]", "test_split": "test[:45]"}
    config.eval.knn.update(knn | {"max_train": 0, "resize": 16})
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "first"
    train(recipe(), workdir)
    return workdir


@pytest.fixture(scope="module")
def earlier(run, tmp_path_factory):
    """The same run as it was at step 2."""
    workdir = tmp_path_factory.mktemp("runs") / "earlier"
    shutil.copytree(run, workdir)
    shutil.rmtree(workdir / "checkpoints" / "4")
    return workdir


def call(command, *arguments):
    """A command's main with its flags."""
    values = flags.FlagValues()
    command.define_flags(values)
    values(["command", *arguments])
    command.main(values)


def table(path):
    """{value: {name of a run: [numbers]}} of the CSV beside a plot."""
    found = {}
    with open(path, newline="") as handle:
        for value, name, _, _, number in list(csv.reader(handle))[1:]:
            found.setdefault(value, {}).setdefault(name, []).append(float(number))
    return found


def model_at(run, step):
    graphdef, params, state = shared.model_of(recipe(), run / "checkpoints" / str(step))
    return lambda values: merge(graphdef, values, state), params


def pixels_of(split):
    """Normalized images of a split and their labels, read one by one."""
    source, transform = inputs.open_split(inputs.data_config(recipe()), split=split), EvalTransform((16, 16), 1, 16)
    examples = [transform(source[i], np.random.default_rng(0)) for i in range(len(source))]
    images = jnp.asarray(np.stack([example["image"] for example in examples]))
    return inputs.normalizer(recipe())(images), np.array([example["label"] for example in examples])


def test_gradient_norms_are_means_over_training_batches_at_the_middle(run, tmp_path):
    call(gradients, f"--runs={run}", "--labels=Ours", "--batches=3", f"--output={tmp_path / 'new' / 'figure'}")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["figure.csv", "figure.pdf", "figure.png"]
    found = table(tmp_path / "new" / "figure.csv")["norm"]["Ours"]

    build, params = model_at(run, 2)
    task, _ = build_task(recipe(), "")
    gradient = jax.jit(lambda params, batch, key: jax.grad(lambda p: task.loss(build(p), batch, key)[0])(params))
    norms = []
    for index, batch in zip(range(3), task.train_batches(0), strict=False):
        key = jax.random.fold_in(jax.random.key(recipe().seed), index)
        leaves = flatten(gradient(params, {"image": jnp.asarray(batch["image"])}, key))
        block = [np.ravel(leaf) for path, leaf in leaves.items() if path.startswith("encoder/blocks/0/")]
        norms.append(np.linalg.norm(np.concatenate(block)))
    assert len(set(norms)) == 3
    assert found == pytest.approx([np.mean(norms), 0.0], rel=1e-4)  # nothing hangs on the second block
    assert found[0] > 1e-4


def test_attention_is_averaged_over_images_and_told_in_pixels(run, tmp_path):
    """Five images in batches of four against one after the other."""
    call(attention, f"--runs={run}", "--images=5", "--batch_size=4", f"--output={tmp_path / 'figure'}")
    found = table(tmp_path / "figure.csv")
    build, params = model_at(run, 4)
    images, _ = pixels_of("train[:64]")
    kept = [images[i : i + 1] for i in (64 * np.arange(5) // 5)]
    compute = jax.jit(lambda params, image: build(params).encoder.attention(image, attention.statistics))
    each = [compute(params, image) for image in kept]
    patch = recipe().model.patch_size
    for value, scale in {"kl": 1, "nmi": 1, "distance": patch}.items():
        means = [scale * np.mean([layers[i][value][0] for layers in each]) for i in range(2)]
        assert found[value][run.name] == pytest.approx(means, rel=1e-3), value


def test_every_layers_neighbors_and_the_likeness_of_two_runs(run, earlier, tmp_path):
    output = tmp_path / "layers"
    call(layers, f"--runs={run},{earlier}", "--labels=A,B", "--k=5", "--images=20", f"--output={output}")
    found = table(f"{output}.csv")["knn"]
    features = []
    for step in (4, 2):
        build, params = model_at(run, step)
        compute = jax.jit(lambda params, images, build=build: build(params).encoder(images, taps=(1, 2)))

        def pooled(images, compute=compute, params=params):
            tokens = [np.asarray(x, np.float64)[:, 1:] for x in compute(params, images)]
            mean, variance = ([f(x, axis=-1, keepdims=True) for x in tokens] for f in (np.mean, np.var))
            return [((x - m) / np.sqrt(v + 1e-6)).mean(axis=1) for x, m, v in zip(tokens, mean, variance, strict=True)]

        features.append(pooled)
    for features_of, name in zip(features, "AB", strict=True):
        (train_images, train_labels), (test_images, test_labels) = pixels_of("train[:50]"), pixels_of("test[:45]")
        sides = zip(features_of(train_images), features_of(test_images), strict=True)
        expected = [
            knn_accuracy(x.astype(np.float32), train_labels, y.astype(np.float32), test_labels, 5, 0.07, 10)
            for x, y in sides
        ]
        assert found[name] == pytest.approx(expected, abs=1e-6)
    images = pixels_of("train[:64]")[0]
    images = images[64 * np.arange(20) // 20]
    grid = [[layers.cka(x, y) for y in features[1](images)] for x in features[0](images)]
    with open(f"{output}_cka.csv", newline="") as handle:
        lines = list(csv.reader(handle))
    assert lines[0] == ["layer of A", "layer of B", "linear CKA"]
    assert [float(line[2]) for line in lines[1:]] == pytest.approx(np.ravel(grid), abs=1e-4)
    assert Image.open(f"{output}_cka.png").size[0] > 300


def test_a_run_is_like_itself_and_other_images_are_refused(run, tmp_path):
    config, place = recipe(), run / "checkpoints" / "4"
    grid = layers.compare((config, place), (config, place), images=20)
    np.testing.assert_allclose(np.diag(grid), 1, rtol=1e-5)
    np.testing.assert_allclose(grid, grid.T, rtol=1e-5)
    assert grid[0, 1] < 0.999
    larger = recipe()
    larger.image_size = (32, 32)
    with pytest.raises(ConfigError, match="images of different sizes"):
        layers.compare((config, place), (larger, place), images=20)


def test_the_checkpoint_that_is_looked_at(run, tmp_path):
    assert [shared.checkpoint_at(run, at).name for at in ("last", "middle", "2", "4")] == ["4", "2", "2", "4"]
    with pytest.raises(ConfigError, match=r"--at=late: it must be last, middle or a step"):
        shared.checkpoint_at(run, "late")
    with pytest.raises(ConfigError, match=r"has kept the checkpoints 2, 4, none at step 3: name one with --at"):
        shared.checkpoint_at(run, "3")
    shutil.copytree(run, tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "2")
    with pytest.raises(ConfigError, match=r"has kept the checkpoints 4, none near step 2: .*keep_every_steps"):
        shared.checkpoint_at(tmp_path / "cut", "middle")


def test_a_value_is_measured_once_for_the_same_settings(run, tmp_path):
    """And anew for other settings, or when what was kept is damaged."""
    shutil.copytree(run, tmp_path / "run")
    calls = []

    def compute(checkpoint):
        calls.append(checkpoint.name)
        return {"kl": np.array([0.5, len(calls)])}

    def ask(images, compute):
        return shared.remembered(tmp_path / "run", "attention", "last", {"images": images}, compute)

    assert ask(5, None) is None
    assert [ask(5, compute)["kl"].tolist(), ask(5, None)["kl"].tolist()] == [[0.5, 1], [0.5, 1]]
    assert ask(6, None) is None
    assert ask(6, compute)["kl"].tolist() == [0.5, 2]
    (tmp_path / "run/analysis/attention.json").write_text("{")
    assert ask(6, compute)["kl"].tolist() == [0.5, 3]
    assert json.loads((tmp_path / "run/analysis/attention.json").read_text())["values"] == {"kl": [0.5, 3.0]}
    assert calls == ["4"] * 3
    shutil.rmtree(tmp_path / "run/analysis")
    (tmp_path / "run/analysis").write_text("")
    with pytest.raises(StorageError, match="analysis cannot be made"):
        ask(7, compute)


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (gradients, [], "no --runs given; for example"),
        (attention, ["--runs=a,b", "--labels=A"], "--labels has 1 names for 2 runs"),
        (gradients, ["--runs=RUN", "--batches=0"], "--batches=0: at least 1 is needed"),
        (attention, ["--runs=RUN", "--images=0"], "--images=0: at least 1 is needed"),
    ],
)
def test_impossible_questions_are_refused(run, command, arguments, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        call(command, *(text.replace("RUN", str(run)) for text in arguments), f"--output={tmp_path / 'x'}")
    assert not list(tmp_path.iterdir())
