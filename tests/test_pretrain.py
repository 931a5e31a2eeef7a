"""Real runs of the pre-training task through the real loop: devices, seeds, resuming, and every kind of dataset."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from localmim_jax.build import build_task
from localmim_jax.configs import parts
from localmim_jax.engine import loop
from localmim_jax.errors import ConfigError, DataError
from localmim_jax.recipes.override import record
from tests.shrink import shrink
from tests.training import first_devices

STEPS = 6


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """Forty crops of real photographs as files, nested by subject, of various sizes."""
    from skimage import data

    root = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for name in ("astronaut", "coffee", "chelsea", "rocket"):
        picture = Image.fromarray(getattr(data, name)())
        (root / name).mkdir()
        for i in range(10):
            width, height = (int(side) for side in rng.integers(90, 200, 2))
            left, top = (
                int(rng.integers(0, full - side)) for full, side in zip(picture.size, (width, height), strict=True)
            )
            picture.crop((left, top, left + width, top + height)).save(root / name / f"{i}.{['jpg', 'png'][i % 2]}")
    return root


def recipe(photographs, **changes):
    config = shrink(parts.pretrain(parts.vit("vit_b")))
    config.data.name = f"folder:{photographs}"
    config.num_steps = STEPS
    config.model.dtype = "float32"
    config.model.depth, config.model.taps, config.model.target.cells = 2, (1, 2), (8, 16)
    config.checkpoint.update({"every_steps": 3, "keep_last": 5})
    config.eval.reconstruction.num_images = 0
    config.update_from_flattened_dict(changes)
    return config


def train(config, workdir, devices=1):
    """(losses by step, state hash, example ids by step) of a run on the first few fake devices."""
    task, settings = build_task(config, str(workdir))
    seen = []

    def recorded(first_step):
        for batch in task.train_batches(first_step):
            seen.append(batch["id"].tolist())
            yield batch

    recording = dataclasses.replace(task, train_batches=recorded)
    with first_devices(devices):
        summary = loop.run(recording, settings, workdir, record(config))
    losses = [line["loss"] for line in read_metrics(workdir)]
    return losses, summary.state_hash, seen


def read_metrics(workdir):
    lines = [json.loads(line) for line in (Path(workdir) / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


@pytest.fixture(scope="module")
def whole_run(photographs, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, *train(recipe(photographs), workdir)


def test_the_same_seed_gives_the_same_bits(photographs, whole_run, tmp_path):
    _, losses, state_hash, ids = whole_run
    assert train(recipe(photographs), tmp_path) == (losses, state_hash, ids)
    assert len(losses) == STEPS
    assert np.isfinite(losses).all()


def test_a_resumed_run_ends_with_the_same_bits(photographs, whole_run, tmp_path):
    """Step 3 lies inside an epoch of five batches, and the resumed half crosses into the second epoch."""
    workdir, losses, state_hash, ids = whole_run
    shutil.copytree(workdir, tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut/checkpoints/6")
    (tmp_path / "cut/metrics.jsonl").unlink()
    resumed, resumed_hash, resumed_ids = train(recipe(photographs), tmp_path / "cut")
    assert resumed_hash == state_hash
    assert resumed == losses[3:]
    assert resumed_ids == ids[3:]


def test_four_devices_see_the_same_examples_and_losses(photographs, whole_run, tmp_path):
    _, losses, _, ids = whole_run
    spread, _, spread_ids = train(recipe(photographs), tmp_path, devices=4)
    assert spread_ids == ids
    np.testing.assert_allclose(spread, losses, rtol=1e-5)


def test_another_seed_is_another_order(photographs, whole_run):
    *_, ids = whole_run
    task, _ = build_task(recipe(photographs, seed=1), "")
    assert next(task.train_batches(0))["id"].tolist() != ids[0]


def test_flat_folders_wide_images_one_gray_channel_and_pixels(photographs, tmp_path):
    """A flat folder without labels, 96 x 128 px, one channel, pixel targets, pictures: all at once, really run."""
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in photographs.rglob("*.*"):
        shutil.copy(path, flat / f"{path.parent.name}_{path.name}")
    changes = {
        "image_size": (96, 128),
        "data.channels": 1,
        "data.mean": (0.45,),
        "data.std": (0.25,),
        "num_steps": 2,
        "model.target.kind": "pixels",
        "model.target.cells": (16, 32),
        "data.vertical_flip": True,
        "data.color_jitter": (0.4, 0.4, 0.0, 0.0),
        "eval.reconstruction.num_images": 2,
        "eval.rank.num_images": 12,
    }
    losses, _, _ = train(recipe(flat, **changes), tmp_path / "run")
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    ranks = [line for line in lines if "rank/rankme" in line]
    assert [line["step"] for line in ranks] == [0, 2]
    for line in ranks:
        assert (line["rank/images"], line["rank/width"]) == (12, 32)
        assert 1 <= line["rank/rankme"] <= 12.01
        assert 1 <= line["rank/effective_rank"] <= 11.01  # the mean takes one dimension


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"task": "dream"}, ConfigError, "must be one of pretrain"),
        ({"model.variant": "vit_xxl"}, ConfigError, "must be one of vit_ti"),
        ({"data.mean": (0.5,)}, ConfigError, "give one value per channel"),
        ({"image_size": (32,)}, ConfigError, r"image_size is \(32,\): give height and width"),
        ({"image_size": (0, 32)}, ConfigError, r"image_size is \(0, 32\): give height and width"),
        ({"data.std": (0.5, 0.0, 0.5)}, ConfigError, "above 0"),
        ({"num_steps": 0}, ConfigError, "less than one step"),
        ({"data.name": "folder:/nowhere"}, DataError, "/nowhere"),
        ({"model.target.hog_bias": "/nowhere.npz"}, ConfigError, r"nowhere\.npz cannot be read \(No such file"),
        ({"model.target.hog_bias": "{flat}/junk.npz"}, ConfigError, r"junk\.npz is not an npz file: arrays hog_enc"),
        ({"model.target.hog_bias": "{flat}/other.npz"}, ConfigError, r"other\.npz does not hold it: arrays hog_enc"),
        ({"schedule.warmup_steps": 50}, ConfigError, "warm-up"),
        ({"model.mlp_ratio": 0.0}, ConfigError, "model.mlp_ratio 0.0 gives the MLPs a width of 0"),
        ({"eval.reconstruction.num_images": -1}, ConfigError, "num_images is -1: give the number of pictures"),
        ({"eval.rank.num_images": -1}, ConfigError, "eval.rank.num_images is -1: images are needed"),
        (
            {"eval.reconstruction.num_images": 1, "eval.reconstruction.every_epochs": -1.0},
            ConfigError,
            r"eval.reconstruction.every_epochs is -1.0: epochs between",
        ),
        (
            {"eval.knn.enabled": True, "eval.knn.test_split": "train", "eval.knn.name": "folder:{flat}"},
            DataError,
            "no labels",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_step(photographs, tmp_path, changes, error, message):
    flat = tmp_path / "flat"
    flat.mkdir()
    shutil.copy(photographs / "coffee/0.jpg", flat)
    (flat / "junk.npz").write_bytes(b"junk")
    np.savez(flat / "other.npz", a=np.zeros(2))
    changes = {key: value.format(flat=flat) if isinstance(value, str) else value for key, value in changes.items()}
    with pytest.raises(error, match=message) as caught:
        build_task(recipe(photographs, **changes), "")
    assert "\n" not in str(caught.value)
