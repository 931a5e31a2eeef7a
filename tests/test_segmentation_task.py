"""The segmentation task: wiring, initialization, a real small run, and the settings that it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from localmim_jax import params as trees
from localmim_jax.build import build_task
from localmim_jax.cli.evaluate import evaluate
from localmim_jax.configs import quickstart_segment, swin_b_hog_400ep_ade20k, vit_b_1600ep_ade20k
from localmim_jax.convert.interpolate import resize_positions
from localmim_jax.convert.load import check
from localmim_jax.convert.weights import Weights
from localmim_jax.engine import loop
from localmim_jax.engine.mesh import make_mesh, place_batch
from localmim_jax.engine.optim import make_optimizer
from localmim_jax.engine.schedule import make_schedule
from localmim_jax.engine.state import StateSpec
from localmim_jax.engine.step import make_train_step
from localmim_jax.errors import ConfigError, DataError
from localmim_jax.models.info import ModelInfo
from localmim_jax.recipes.override import record
from localmim_jax.segmentation import regions
from localmim_jax.segmentation.task import model_config
from localmim_jax.segmentation.upernet import Segmenter
from localmim_jax.tasks import initialize
from tests.defaults import optimizer_settings
from tests.shrink import shrink
from tests.test_segmentation_sources import write

ROOT = Path(__file__).parents[1]


def tiny(name="masks:nowhere", classes=3):
    config = shrink(quickstart_segment.get_config().lock())
    config.image_size = (32, 32)
    config.data.update({"name": name, "split": "training", "max_bad_fraction": 0.0})
    config.data.scale = config.eval.scale = (32, 32)
    config.eval.update({"stride": 16, "multiple": 32})
    config.model.update({"width": 16, "num_heads": 2, "num_classes": classes, "pool_scales": (1, 2)})
    return config


def drawn(model):
    """Parameters and statistics of a model as they begin, but for what is drawn at random, which is 0.5."""
    _, *trees_of_shapes = trees.split(lambda rngs: Segmenter(model, rngs=rngs))

    def begin(path, leaf):
        ones, zeros = path.endswith(("scale", "scale1", "scale2", "var")), path.endswith(("bias", "mean"))
        return np.full(leaf.shape, 1.0 if ones else 0.0 if zeros else 0.5, np.float32)

    return [trees.map_with_path(begin, tree) for tree in trees_of_shapes]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(config, run directory, summary) of three steps on regions of photographs."""
    place = tmp_path_factory.mktemp("segment")
    folder = regions.prepare(str(place), {"training": 16, "validation": 5})
    config = tiny(f"masks:{folder}", 7)
    config.eval.write_masks = True
    task, engine = build_task(config, str(place / "run"))
    return config, place / "run", loop.run(task, engine, place / "run", record(config))


def test_a_run_evaluates_every_image_and_leaves_masks_and_pictures(run):
    config, place, summary = run
    values = summary.evaluations
    assert int(summary.state["step"]) == 3
    assert values["validation/images"] == 5
    assert 0 <= values["validation/mIoU"] <= values["validation/pixel_accuracy"] <= 1
    steps = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    for step in (step for step in steps if "loss" in step):
        assert step["loss"] == pytest.approx(step["decode"] + 0.4 * step["auxiliary"], rel=1e-5)
    root = Path(config.data.name.removeprefix("masks:"))
    written = sorted((place / "masks").glob("*.png"))
    assert [path.name for path in written] == [f"{i:05d}.png" for i in range(5)]
    right = count = 0
    for path in written:
        found, truth = (np.asarray(Image.open(p)) for p in (path, root / "annotations/validation" / path.name))
        assert found.shape == truth.shape
        assert found.min() >= 1
        right += ((found == truth) & (truth > 0)).sum()
        count += (truth > 0).sum()
    assert values["validation/pixel_accuracy"] == pytest.approx(right / count, rel=1e-9)
    assert list((place / "pictures").glob("validation-pictures-*.png"))


def test_evaluating_a_checkpoint_takes_its_statistics_too(run):
    _, place, summary = run
    statistics = trees.flatten(summary.state["model_state"])
    assert statistics
    assert all(np.asarray(leaf).any() for leaf in statistics.values())
    found = evaluate(str(place))
    for key in ("mIoU", "pixel_accuracy", "mean_accuracy"):
        assert found[f"validation/{key}"] == pytest.approx(summary.evaluations[f"validation/{key}"], abs=1e-12)


def test_other_classes_keep_new_classifiers_only(run):
    _, place, summary = run
    model = model_config(tiny(classes=4))
    params, statistics = drawn(model)
    filled, state, report = initialize.load_into(initialize.read(str(place)), params, statistics, model)
    check(report)
    new = {row.path for row in report.rows if row.status == "initialized"}
    assert new == {
        f"{head}/classifier/linear/{leaf}" for head in ("decode_head", "auxiliary_head") for leaf in ("kernel", "bias")
    }
    for path, leaf in trees.flatten(state).items():
        np.testing.assert_array_equal(leaf, trees.flatten(summary.state["model_state"])[path])
    assert trees.flatten(filled).keys() == trees.flatten(params).keys()


def test_from_pretraining_positions_are_bilinear_and_the_rest_new():
    config = tiny()
    model = model_config(config)
    params, statistics = drawn(model)
    rng = np.random.default_rng(0)
    own = ("relative_position_bias", "scale1", "scale2")
    source = {
        path: rng.normal(size=leaf.shape).astype(np.float32)
        for path, leaf in trees.flatten(params).items()
        if path.startswith("encoder/") and not path.endswith(own)
    }
    table = source["encoder/position_embedding"] = rng.normal(size=(1 + 2 * 2, 16)).astype(np.float32)
    weights = Weights(source, ModelInfo("vit", "pretrain", (16, 16), (2,)), "somewhere")
    filled, state, report = initialize.load_into(weights, params, statistics, model)
    check(report)
    flat = trees.flatten(filled)
    np.testing.assert_array_equal(
        flat["encoder/position_embedding"], resize_positions(table, (2, 2), (4, 4), "bilinear")
    )
    for path, leaf in flat.items():
        if path in source and path != "encoder/position_embedding":
            np.testing.assert_array_equal(leaf, source[path])
    assert not np.asarray(flat["encoder/blocks/1/attention/relative_position_bias"]).any()
    assert (np.asarray(flat["encoder/blocks/1/scale2"]) == 1).all()
    assert trees.flatten(state).keys() == trees.flatten(statistics).keys()


def test_relative_bias_and_layer_scale_go_with_one_override():
    config = tiny()
    config.model.relative_and_scale = False
    encoder = model_config(config).encoder
    assert not encoder.relative_position_bias
    assert not encoder.layer_scale
    assert encoder.position == "learned"


@pytest.mark.parametrize("recipe", [vit_b_1600ep_ade20k, swin_b_hog_400ep_ade20k])
def test_recipes_are_the_supplements_at_full_size(recipe):
    config = recipe.get_config()
    config.data.name = "fake"
    task, engine = build_task(config, "")
    is_vit = config.model.variant == "vit_b"
    _, params, statistics = trees.split(task.make_model)
    paths = trees.flatten(params)
    millions = sum(leaf.size for leaf in paths.values()) / 1e6
    assert millions == pytest.approx(163.88 if is_vit else 121.28, abs=0.01)
    assert len(trees.flatten(statistics)) > 20
    optimizer = make_optimizer(optimizer_settings(layer_decay=0.65), paths, task.weight_decay_rules, task.layer_of)
    assert engine.optimizer.layer_decay == (0.65 if is_vit else None)
    assert engine.optimizer.weight_decay == (0.05 if is_vit else 0.01)
    if is_vit:
        for i in range(12):
            for leaf in ("attention/relative_position_bias", "scale1", "mlp/fc1/kernel"):
                assert optimizer.lr_scale[f"encoder/blocks/{i}/{leaf}"] == pytest.approx(0.65 ** (12 - i))
        assert optimizer.lr_scale["encoder/position_embedding"] == pytest.approx(0.65**13)
        assert optimizer.decayed["encoder/blocks/0/attention/relative_position_bias"]
    else:
        tables = [path for path in paths if path.endswith("relative_position_bias")]
        assert len(tables) == 24
        assert not any(optimizer.decayed[path] for path in tables)
        assert optimizer.decayed["encoder/stages/0/blocks/0/mlp/fc1/bias"]
    for path, decayed in optimizer.decayed.items():
        assert decayed or "norm" in path or is_vit or "relative" in path, path
    assert optimizer.lr_scale["decode_head/classifier/linear/kernel"] == 1.0

    peak = 4e-4 if is_vit else 6e-5
    schedule = make_schedule(engine.schedule, 16, task.num_steps, task.steps_per_epoch)
    assert task.num_steps == 160000
    for step, share in ((0, 1e-6), (750, 0.5 * (1 - 750 / 160000)), (1500, 1 - 1500 / 160000), (80000, 0.5)):
        assert float(schedule(jnp.int32(step))) == pytest.approx(peak * share, rel=2e-3)


def broken(folder, how):
    """Damages a folder of `test_segmentation_sources.write`."""
    path = folder / "annotations/training/1.png"
    if how == "size":
        Image.fromarray(np.ones((9, 9), np.uint8)).save(path)
    elif how == "value":
        Image.fromarray(np.full((9, 13), 7, np.uint8)).save(path)
    elif how == "mask":
        path.unlink()
    else:
        for file in (folder / "images/validation").iterdir():
            file.unlink()


BROKEN = {
    "size": r"images/training/1.png: the image is 9 x 13 .* its mask 9 x 9",
    "value": r"images/training/1.png has the value 7, and 3 classes are listed",
    "mask": r"1 of the 4 images .* have no mask .*: 1.png",
    "empty": r"images/validation holds no images",
}


@pytest.mark.parametrize("how", BROKEN)
def test_bad_data_is_named_before_the_first_step(tmp_path, how):
    write(tmp_path, 2, "validation")
    broken(write(tmp_path), how)
    with pytest.raises(DataError, match=BROKEN[how]) as caught:
        build_task(tiny(f"masks:{tmp_path}"), "")
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("how", BROKEN)
def test_bad_data_ends_the_program_with_one_line(tmp_path, how):
    write(tmp_path, 2, "validation")
    broken(write(tmp_path), how)
    command = ["main.py", "--config=configs/quickstart_segment.py", f"--workdir={tmp_path / 'run'}"]
    command += [f"--config.data.name=masks:{tmp_path}", "--config.model.num_classes=3"]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert len([line for line in done.stderr.splitlines() if line.startswith("main.py:")]) == 1
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("eval.mode", "whole", "positions have one size: set eval.mode=slide"),
        ("eval.mode", "tiles", "must be one of slide, whole"),
        ("eval.stride", 40, "from 1 to the window, image_size 32"),
        ("eval.multiple", 0, "eval.multiple is 0; it must be at least 1"),
        ("eval.scale", (0, 32), r"eval.scale is \(0, 32\); give \(long, short\) side in pixels"),
        ("eval.ratios", (0.0,), "give at least one factor above 0"),
        ("eval.batch_size", 0, "eval.batch_size is 0"),
        ("image_size", (32, 64), "must be square"),
        ("data.scale", (0, 32), r"data.scale is \(0, 32\); give \(long, short\) side in pixels"),
        ("data.ratio_range", (2.0, 0.5), r"give \(min, max\), both above 0"),
        ("data.contrast", 1.5, "data.contrast is 1.5; it must be from 0 to 1"),
        ("data.hue", -0.1, "data.hue is -0.1; it must not be negative"),
        ("data.max_class_fraction", 0.0, "above 0 and at most 1"),
        ("model.num_classes", 4, "has 3 classes, and the model 4"),
        ("model.taps", (1, 2), "reads four layers"),
        ("model.num_classes", 300, "from 2 to 254"),
        ("model.auxiliary_weight", -1.0, "must not be negative"),
    ],
)
def test_impossible_settings_are_refused(tmp_path, key, value, message):
    write(write(tmp_path), 2, "validation")
    config = tiny(f"masks:{tmp_path}")
    holder, _, name = key.rpartition(".")
    (config[holder] if holder else config)[name] = value
    with pytest.raises((ConfigError, DataError), match=message):
        build_task(config, "")


@pytest.mark.slow
def test_a_step_is_the_same_on_one_device_and_on_eight(tmp_path):
    """Loss, batch-norm statistics and parameters: what synchronized batch norm is for."""
    config = tiny("fake", 3)
    config.update({"num_steps": 2})
    config.model.update({"dropout": 0.0, "drop_path": 0.0})
    states = []
    for fsdp, devices in ((1, 1), (2, 8)):
        config.mesh.update({"data": devices // fsdp, "fsdp": fsdp})
        task, engine = build_task(config, "")
        spec = StateSpec(task, engine, make_mesh(engine.mesh, jax.devices()[:devices]))
        state = spec.create()
        batch = {key: value for key, value in next(iter(task.train_batches(0))).items() if key != "id"}
        state, metrics = make_train_step(spec)(state, place_batch(spec.mesh, batch), spec.seed)
        states.append((jax.device_get(state["model_state"]), float(metrics["loss"])))
    assert states[0][1] == pytest.approx(states[1][1], rel=1e-5)
    for path, leaf in trees.flatten(states[0][0]).items():
        np.testing.assert_allclose(leaf, trees.flatten(states[1][0])[path], atol=1e-5, err_msg=path)
