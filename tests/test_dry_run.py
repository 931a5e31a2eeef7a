"""A dry run: right counts and length, without the dataset too, and a memory estimate that follows the config."""

import contextlib
import io
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from PIL import Image
from skimage.data import astronaut

from localmim_jax.build import build_task
from localmim_jax.cli import dry_run
from localmim_jax.configs import parts, vit_b_100ep
from localmim_jax.engine.mesh import make_mesh
from localmim_jax.errors import ConfigError, DataError
from localmim_jax.planning import inputs
from tests.defaults import mesh_settings
from tests.shrink import shrink
from tests.test_configs import RECIPES, recipe

ROOT = Path(__file__).parents[1]


def small():
    config = shrink(parts.pretrain(parts.vit("vit_b")))
    config.eval.reconstruction.num_images = 0
    return config


def report(config) -> dict[str, str]:
    """{"memory": "about ...", ...}"""
    return {line.split()[0]: line.split(maxsplit=1)[1] for line in dry_run.report(config)}


def number_before(text: str, unit: str) -> float:
    words = text.split()
    return float(words[next(i for i, word in enumerate(words) if word.startswith(unit)) - 1])


def test_vit_b_without_its_dataset(tmp_path):
    config = vit_b_100ep.get_config()
    config.data.data_dir = str(tmp_path)
    lines = report(config)
    assert "tfds:imagenet2012" in lines["note"]
    assert lines["data"].startswith("1281167 examples assumed")
    assert lines["length"].startswith("62557 steps of 2048 examples, 100 epochs")
    assert "peak 0.0016 = base_lr 0.0002 x 2048 / 256, warm-up 6256 steps" in lines["rate"]
    assert "encoder 85.65 M" in lines["parameters"]
    assert "0.00 M frozen" in lines["parameters"]
    # 50 tokens through 12 blocks of 12 d^2 weights, the decoders on top, times three for the backward pass.
    encoder = 3 * 2 * 50 * 12 * 12 * 768**2 / 1e9
    assert encoder < number_before(lines["work"], "GFLOP") < 1.3 * encoder


def test_every_key_is_printed_as_an_override_names_it():
    printed = io.StringIO()
    config = small()
    config.data.name = "digits"
    with contextlib.redirect_stdout(printed):
        dry_run.run(config)
    lines = printed.getvalue().splitlines()
    assert "model.target.bins = 18" in lines
    assert "num_steps = 3" in lines
    assert "data        1500 examples of digits" in lines
    assert not any(line.startswith("note") for line in lines)
    assert any(line.startswith("memory ") for line in lines)


def activations(config) -> float:
    return float(report(config)["memory"].split("activations ")[1].split()[0])


def test_memory_follows_accumulation():
    config = small()
    config.batch_size = 64
    whole = activations(config)
    config.accum_steps = 4
    assert activations(config) == pytest.approx(whole / 4, rel=0.02)


@pytest.mark.slow
def test_memory_follows_remat():
    config = small()
    config.model.update({"depth": 8, "width": 64})
    config.batch_size = 64
    whole = activations(config)
    config.model.remat = True
    assert activations(config) < 0.6 * whole


def test_what_could_not_run_is_refused():
    config = small()
    config.accum_steps = 3
    with pytest.raises(ConfigError, match="accum_steps=3 does not divide batch_size=8"):
        dry_run.report(config)


def test_more_masks_than_images_are_built_to_see_a_batch():
    config = shrink(parts.pretrain(parts.swin("swin_t")))
    config.batch_size = config.model.num_masks = 16
    assert "memory" in report(config)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe(name, monkeypatch):
    """On one device: not every batch divides among eight."""
    mesh = make_mesh(mesh_settings(), jax.devices()[:1])
    monkeypatch.setattr(dry_run.meshes, "make_mesh", lambda settings: mesh)
    config = recipe(name).lock()
    config.mesh.data = 1
    assert {"length", "rate", "parameters", "work", "memory"} <= report(config).keys()


def test_a_linear_probe_before_its_pre_training():
    config = shrink(parts.linear_probe(parts.vit("vit_b")))
    notes = [line for line in dry_run.report(config) if line.startswith("note")]
    assert "checkpoint.init_from is not set" in notes[0]
    assert config.checkpoint.init_from is None
    config.checkpoint.init_from = "runs/planned"
    assert inputs.with_start(config)[1] == [
        "checkpoint.init_from: runs/planned does not exist yet, and the run needs it"
    ]
    # Three steps of 8 images at this rate leave the head as it was drawn.
    assert "the head will hardly be trained: LARS changes it by at most" in notes[1]


@pytest.mark.slow
def test_a_recipe_with_an_argument_from_the_shell():
    command = [sys.executable, "main.py", "--config=configs/table1.py:swin_b_global_multi", "--dry_run"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "model.taps = (4, 4, 4, 4)" in done.stdout
    assert "memory " in done.stdout


def test_a_detectors_batches_have_two_shapes():
    config = shrink(parts.detect(parts.swin("swin_t")))
    examples = inputs.batch_shapes(config)
    assert [example["image"].shape for example in examples] == [(64, 96, 3), (96, 64, 3)]
    assert len(inputs.batch_shapes(small())) == 1


@pytest.mark.slow
def test_a_detectors_two_shapes_are_both_traced():
    config = shrink(parts.detect(parts.swin("swin_t")))
    lines = dry_run.report(config)
    for what in ("work", "memory"):
        shapes = [line.split(maxsplit=1)[1].split(":")[0] for line in lines if line.startswith(what)]
        assert shapes == ["64 x 96 px", "96 x 64 px"]


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({"kind": "steps", "milestones": (1, 2)}, "to 1e-06"),  # a hundredth of the peak, though min_lr is 0
        ({"kind": "steps", "milestones": (), "milestone_epochs": (1.0,)}, "to 1e-05"),
        ({"kind": "linear", "min_lr": 3e-5}, "to 3e-05"),
        ({"kind": "cosine", "min_lr": 2e-5}, "to 2e-05"),
    ],
)
def test_the_rate_ends_where_the_schedule_does(changes, end):
    config = shrink(parts.detect(parts.swin("swin_t")))
    config.schedule.update({"peak_lr": 1e-4, "milestones": (), "milestone_epochs": (), **changes})
    task, settings = build_task(config, workdir="")
    line = dry_run._learning_rate(task, settings)
    assert line.endswith(f"warm-up 1 steps, {end}"), line


def classifier(tmp_path, folder: str = "photos"):
    config = shrink(parts.finetune(parts.vit("vit_b")))
    config.data.name = f"folder:{tmp_path}/{folder}"
    config.schedule.peak_lr = 1e-3
    return config


def photos(root, splits=("train", "val"), classes=("cat", "dog", "owl")):
    for split in splits:
        for i in range(6):
            path = root / "photos" / split / (classes[i % len(classes)] if classes else "") / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(astronaut()[64 * i : 64 * i + 40, :50]).save(path)


def test_a_dataset_that_is_not_here_is_assumed_with_the_models_classes(tmp_path):
    config = classifier(tmp_path, "nowhere")
    config.model.num_classes = 3
    built = inputs.build(config)
    notes = built.notes
    assert built.examples == f"{config.data.fake_examples} examples assumed (data.fake_examples)"
    assert f"folder:{tmp_path}/nowhere does not exist" in notes[0]
    assert (
        f"nowhere is not here: assumed are {config.data.fake_examples} examples (data.fake_examples) and 3 classes"
        in (notes[1])
    )


@pytest.mark.parametrize(
    ("splits", "classes", "num_classes", "message"),
    [
        (
            ("train", "val"),
            ("cat", "dog", "owl"),
            1000,
            r"photos\[train\] has 3 classes, and the model 1000: set --config",
        ),
        (("train", "val"), (), 3, r"photos\[train\] has no labels"),
        (("train",), ("cat", "dog", "owl"), 3, "val"),
    ],
)
def test_what_is_wrong_with_the_data_that_is_here_is_the_error(tmp_path, splits, classes, num_classes, message):
    photos(tmp_path, splits, classes)
    config = classifier(tmp_path)
    config.model.num_classes = num_classes
    with pytest.raises(DataError, match=message) as error:
        dry_run.report(config)
    assert "fake" not in str(error.value)


def test_the_plan_has_the_size_of_the_data_that_is_here(tmp_path):
    photos(tmp_path)
    config = classifier(tmp_path)
    config.model.num_classes = 3
    built = inputs.build(config)
    assert (built.examples, built.notes) == (f"6 examples of folder:{tmp_path}/photos", ())
    assert built.task.steps_per_epoch == 6 / config.batch_size


def test_k_nn_data_that_are_not_here_cost_the_plan_only_the_k_nn(tmp_path):
    photos(tmp_path)
    config = small()
    config.data.name = f"folder:{tmp_path}/photos"
    config.eval.knn.update({"enabled": True, "name": f"folder:{tmp_path}/nowhere"})
    built = inputs.build(config)
    (note,) = built.notes
    assert note.startswith("eval.knn: ")
    assert "nowhere does not exist" in note
    assert built.examples == f"6 examples of folder:{tmp_path}/photos"
