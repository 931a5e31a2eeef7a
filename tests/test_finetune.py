"""Real runs of the fine-tuning and probing tasks through the real loop, on scikit-learn's digits."""

import importlib
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from localmim_jax.build import build_task
from localmim_jax.cli.evaluate import evaluate
from localmim_jax.configs import parts, quickstart, quickstart_finetune
from localmim_jax.data.augment import EvalTransform
from localmim_jax.data.sources import FakeSource
from localmim_jax.engine.checkpoints.write import Checkpointer
from localmim_jax.engine.evaluate import Evaluator
from localmim_jax.engine.mesh import gather, make_mesh
from localmim_jax.engine.schedule import make_schedule
from localmim_jax.engine.state import StateSpec, evaluation_params
from localmim_jax.errors import ConfigError, DataError
from localmim_jax.method.localmim import LocalMIM
from localmim_jax.params import flatten, merge, split, unflatten
from localmim_jax.recipes.override import record
from localmim_jax.tasks import finetune, from_config, inputs
from tests.defaults import checkpoint_settings, vit_config
from tests.shrink import shrink
from tests.test_configs import CONFIGS
from tests.training import train

RECIPES = sorted(path.stem for path in CONFIGS.glob("*.py") if path.stem.endswith(("_finetune", "_linear")))
STEPS = 6


def recipe(**changes):
    """Two blocks of width 16 on 16 px digits, with everything that fine-tuning can do turned on."""
    config = shrink(quickstart_finetune.get_config())
    config.data.update({"name": "digits", "split": "train[:100]"})
    config.batch_size = 32
    config.num_steps = STEPS
    config.model.update({"width": 16, "depth": 2, "num_heads": 2, "num_classes": 10, "drop_path": 0.2})
    config.augment = parts.finetune(parts.vit("vit_b")).augment
    config.optimizer.ema_decay = 0.9
    config.checkpoint.update({"every_steps": 3, "keep_last": 5})
    config.eval.every_epochs = 1.0
    config.update_from_flattened_dict(changes)
    return config


def spec_of(config, devices=1):
    task, run = build_task(config, "")
    return StateSpec(task, run, make_mesh(run.mesh, jax.devices()[:devices]))


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, train(recipe(), workdir)


def losses(workdir):
    lines = [json.loads(line) for line in (Path(workdir) / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def test_a_resumed_run_ends_with_the_same_bits(whole_run, tmp_path):
    """Parameters, moving average and optimizer alike; mixup, erasing, RandAugment and drop path are drawn again."""
    workdir, whole = whole_run
    shutil.copytree(workdir, tmp_path / "cut")
    for step in ("4", "5", "6"):
        shutil.rmtree(tmp_path / "cut/checkpoints" / step, ignore_errors=True)
    (tmp_path / "cut/metrics.jsonl").unlink()
    resumed = train(recipe(), tmp_path / "cut")
    assert losses(tmp_path / "cut") == losses(workdir)[3:]
    assert resumed.state_hash == whole.state_hash
    jax.tree.map(np.testing.assert_array_equal, gather(resumed.state), gather(whole.state))
    ema, params = flatten(whole.state["ema"]), flatten(whole.state["params"])
    assert ema.keys() == params.keys()
    assert any(np.abs(ema[path] - params[path]).max() > 1e-5 for path in ema)


@pytest.mark.parametrize("devices", [1, 4])
def test_evaluation_equals_a_plain_loop(whole_run, devices):
    """297 test digits in batches of 32, on one and on four devices, against one image at a time in numpy."""
    _, whole = whole_run
    config = recipe()
    spec = spec_of(config, devices)
    state = jax.device_put(gather(whole.state), spec.shardings)
    found = Evaluator(spec.task.evaluations[0], spec)(state)

    source = inputs.open_split(inputs.data_config(config), split="test")
    transform = EvalTransform((16, 16), 1, 16)
    examples = [transform(source[i], np.random.default_rng(0)) for i in range(len(source))]
    pixels = np.stack([example["image"] for example in examples]).astype(np.float64)
    normalized = ((pixels / 255 - 0.306) / 0.376).astype(np.float32)
    model = merge(spec.graphdef, jax.tree.map(jnp.asarray, evaluation_params(gather(whole.state))), {})
    scores = np.asarray(jax.jit(lambda images: jax.lax.map(lambda image: model(image[None])[0], images))(normalized))
    right, among_five, cross_entropy = 0, 0, 0.0
    for row, example in zip(scores.astype(np.float64), examples, strict=True):
        order = sorted(range(10), key=lambda c: (-row[c], c))
        right += order[0] == example["label"]
        among_five += example["label"] in order[:5]
        cross_entropy += np.log(np.exp(row).sum()) - row[example["label"]]
    assert len(examples) % config.batch_size
    assert found["test/examples"] == len(examples) == 297
    assert found["test/top1"] == right / 297
    assert found["test/top5"] == among_five / 297
    assert found["test/loss"] == pytest.approx(cross_entropy / 297, rel=1e-5)
    if devices == 1:
        assert whole.evaluations["test/top1"] == found["test/top1"]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A pre-training run directory with the parameters of its first and its averaged model, as the loop leaves it."""
    config = shrink(quickstart.get_config())
    config.model.update({"width": 16, "depth": 2, "num_heads": 2, "taps": (1, 2), "drop_path": 0.0})
    config.model.target.cells = (4, 8)
    model = from_config.localmim_config(config)
    _, abstract, _ = split(lambda rngs: LocalMIM(model, rngs=rngs))
    rng = np.random.default_rng(5)
    params = jax.tree.map(lambda leaf: 0.2 * rng.normal(size=leaf.shape).astype(np.float32), abstract)
    workdir = tmp_path_factory.mktemp("pretrained")
    (workdir / "config.json").write_text(json.dumps(record(config)))
    checkpointer = Checkpointer(workdir / "checkpoints", checkpoint_settings())
    checkpointer.save(
        7, {"params": params, "model_state": {}, "ema": jax.tree.map(lambda p: p + 1, params), "step": np.int32(7)}
    )
    checkpointer.close()
    return workdir, params


def started(config):
    """The parameters of a task after its `init_from`, on zeros instead of drawn ones."""
    spec = spec_of(config)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), spec.abstract_params)
    return flatten(spec.task.init_from(zeros, {})[0])


def test_fine_tuning_starts_from_the_averaged_encoder_of_a_run(pretrained):
    workdir, params = pretrained
    found = started(recipe(**{"checkpoint.init_from": str(workdir)}))
    for path, value in flatten({"encoder": params["encoder"]}).items():
        np.testing.assert_array_equal(found[path], value + 1)
    positions = found["encoder/position_embedding"]
    np.testing.assert_array_equal(positions, vit_config((16, 16), 8, width=16, num_heads=2).position_table())
    for path in ("norm/scale", "norm/bias", "head/kernel", "head/bias"):
        assert not found[path].any(), "stays as drawn"


def test_another_image_size_interpolates_the_positions_of_pre_training(pretrained):
    workdir, _ = pretrained
    wide = recipe(**{"checkpoint.init_from": str(workdir), "image_size": (16, 32)})
    found = started(wide)["encoder/position_embedding"]
    old = vit_config((16, 16), 8, width=16, num_heads=2).position_table()
    own = vit_config((16, 32), 8, width=16, num_heads=2).position_table()
    assert found.shape == own.shape
    assert np.abs(found - own).max() > 0.1  # not recomputed
    np.testing.assert_allclose(found[1:].reshape(2, 4, 16).mean(1), old[1:].reshape(2, 2, 16).mean(1), atol=1e-5)


def test_an_encoder_of_another_size_is_refused_with_every_reason(pretrained):
    config = recipe(**{"checkpoint.init_from": str(pretrained[0]), "model.depth": 3, "model.width": 32})
    with pytest.raises(ConfigError, match="does not fit this model") as error:
        started(config)
    assert "missing encoder/blocks/*" in str(error.value)
    assert "mismatched encoder/class_token" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_linear_probe_trains_the_head_and_nothing_else(pretrained, tmp_path):
    workdir, params = pretrained
    config = shrink(parts.linear_probe(quickstart.encoder()))
    config.data = recipe().data
    config.model.update({"width": 16, "depth": 2, "num_heads": 2, "num_classes": 10, "dtype": "float32"})
    config.update({"image_size": (16, 16), "batch_size": 32, "num_steps": 4})
    config.checkpoint.init_from = str(workdir)
    config.schedule.update({"base_lr": None, "peak_lr": 0.5})
    config.eval.split = "test"
    state = gather(train(config, tmp_path).state)
    found = flatten(state["params"])
    for path, value in flatten({"encoder": params["encoder"]}).items():
        np.testing.assert_array_equal(found[path], value + 1)
    assert {path for path in found if np.ptp(found[path]) and not path.startswith("encoder/")} == {
        "head/kernel",
        "head/bias",
    }
    assert set(flatten(state["opt_state"]["trace"])) == {"head/kernel", "head/bias"}
    statistics = flatten(state["model_state"])
    assert set(statistics) == {"batch_norm/mean", "batch_norm/var"}
    assert np.abs(statistics["batch_norm/mean"]).max() > 1e-4


def test_the_evaluate_command_repeats_the_runs_last_evaluation(whole_run, pretrained):
    workdir, whole = whole_run
    again = evaluate(str(workdir))
    assert again == pytest.approx(whole.evaluations, rel=1e-6)
    with pytest.raises(ConfigError, match="has no head/bias, head/kernel, norm/bias, norm/scale for this model"):
        evaluate(str(pretrained[0]), recipe())


@pytest.mark.parametrize("only", ["mixup", "cutmix", "erasing", "drop_path"])
def test_each_kind_of_chance_is_drawn_from_the_steps_key(only):
    config = recipe(**{"augment.mixup": 0.0, "augment.cutmix": 0.0, "augment.erasing": 0.0, "model.drop_path": 0.0})
    (config.model if only == "drop_path" else config.augment)[only] = 0.9
    spec = spec_of(config)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), spec.abstract_params)
    batch = {
        "image": jnp.asarray(rng.integers(0, 256, (8, 16, 16, 1), np.uint8)),
        "label": jnp.arange(8, dtype=jnp.int32),
    }
    loss = jax.jit(lambda key: spec.task.loss(merge(spec.graphdef, params, {}), batch, key)[0])
    first, again, other = (float(loss(jax.random.key(seed))) for seed in (1, 1, 2))
    assert first == again
    assert abs(first - other) > 1e-3


def test_the_rate_of_fine_tuning_is_the_releases_at_every_step(goldens):
    expected = json.loads((goldens / "schedules.json").read_text())["vit_b_finetune"]["lr"]
    config = importlib.import_module("localmim_jax.configs.vit_b_100ep_finetune").get_config()
    schedule = make_schedule(from_config.run_settings(config).schedule, config.batch_size, len(expected), 2.0)
    assert config.num_epochs * 2 == len(expected)
    np.testing.assert_allclose(schedule(jnp.arange(len(expected))), expected, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_build_with_a_group_for_every_parameter(name):
    config = shrink(importlib.import_module(f"localmim_jax.configs.{name}").get_config())
    if config.task == "linear_probe":
        with pytest.raises(ConfigError, match=r"checkpoint\.init_from"):
            build_task(config, "")
    config.checkpoint.init_from = "runs/somewhere"
    spec = spec_of(config)
    scales = spec.optimizer.lr_scale
    assert scales["head/kernel"] == 1.0
    if config.task == "linear_probe":
        assert set(scales) == {"head/kernel", "head/bias"}
    elif config.model.trained_blocks is None:
        depth = max(spec.task.layer_of(path) for path in scales)
        assert min(scales.values()) == config.optimizer.layer_decay**depth
    batch = next(spec.task.train_batches(0))
    placed = {name: jnp.asarray(array) for name, array in batch.items() if name != "id"}

    def loss(params, model_state, key):
        return spec.task.loss(merge(spec.graphdef, params, model_state), placed, key)

    shape, _, _ = jax.eval_shape(loss, spec.abstract_params, spec.abstract["model_state"], jax.random.key(0))
    assert (shape.shape, shape.dtype) == ((), jnp.float32)


class Labeled(FakeSource):
    """Gray pixels with the labels a test wants."""

    def __init__(self, name, labels, classes=("a", "b")):
        super().__init__(len(labels), (4, 4), 1, name)
        self.name, self.labels = name, labels
        self.class_names, self.num_classes = tuple(classes), len(classes)

    def __getitem__(self, index):
        return {**super().__getitem__(index), "label": self.labels[index]}

    def name_of(self, index):
        return f"{self.name} {index}"


@pytest.mark.parametrize(
    ("train_source", "test_source", "num_classes", "message"),
    [
        (Labeled("train", [0, 1, 0]), Labeled("test", [0, -1]), 2, r"test 1 has label -1: .* from 0 to 1"),
        (Labeled("train", [0, 2]), Labeled("test", [0]), 2, r"train 1 has label 2"),
        (Labeled("train", [0]), Labeled("test", [0], "abc"), 2, r"test has 3 classes, and the model 2"),
        (Labeled("train", [0]), Labeled("test", [0]), 3, r"train has 2 classes, and the model 3"),
        (Labeled("train", [0]), Labeled("test", [0], "ac"), 2, r"only in test: c; only in train: b"),
        (Labeled("train", [0]), Labeled("test", [0], ()), 2, r"test has no labels"),
    ],
)
def test_labels_that_do_not_fit_are_refused_before_the_first_step(train_source, test_source, num_classes, message):
    with pytest.raises(DataError, match=message) as error:
        finetune.check_labels(train_source, test_source, num_classes)
    assert "\n" not in str(error.value)


def test_class_folders_are_checked_when_the_task_is_built(tmp_path):
    for folder in ("train/a", "train/b", "val/a", "val/c"):
        (tmp_path / folder).mkdir(parents=True)
        Image.new("L", (16, 16)).save(tmp_path / folder / "1.png")
    config = recipe(**{"data.name": f"folder:{tmp_path}", "eval.split": "validation", "model.num_classes": 2})
    config.data.split = "train"
    with pytest.raises(DataError, match="do not have the same classes"):
        build_task(config, "")


def test_the_average_is_what_is_evaluated(whole_run):
    """Evaluating the parameters instead of their average would give another loss."""
    _, whole = whole_run
    spec = spec_of(recipe())
    state = gather(whole.state)
    averaged = Evaluator(spec.task.evaluations[0], spec)(state)["test/loss"]
    plain = unflatten({path: flatten(state["params"])[path] for path in flatten(state["ema"])})
    assert Evaluator(spec.task.evaluations[0], spec)({**state, "ema": plain})["test/loss"] != averaged
