"""Pre-training a Swin through the real loop: shared masks under accumulation, resuming, devices, what is refused."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from localmim_jax.build import build_task
from localmim_jax.configs import parts
from localmim_jax.errors import ConfigError
from tests.shrink import shrink
from tests.training import train


def recipe(**changes):
    """Two stages of 8 px mask units, four micro-batched steps with two masks a micro-batch."""
    config = shrink(parts.pretrain(parts.swin("swin_t")))
    config.image_size = (32, 32)
    config.batch_size, config.accum_steps, config.num_steps = 16, 2, 4
    config.model.update({"depths": (2, 1), "num_heads": (1, 2), "window": 3, "dtype": "float32", "num_masks": 2})
    config.model.sparse_attention = ("packed", "plain")
    config.model.taps, config.model.decoder.width = (1, 2), (8, 8)
    config.checkpoint.update({"every_steps": 2, "keep_last": 5})
    config.eval.reconstruction.num_images = 0
    config.update_from_flattened_dict(changes)
    return config


def losses_and_hash(config, workdir, devices):
    """(losses by step, state hash) of a run on the first few fake devices."""
    summary = train(config, workdir, devices)
    lines = [json.loads(line) for line in (Path(workdir) / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line], summary.state_hash


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """Two masks a micro-batch over four devices."""
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, *losses_and_hash(recipe(), workdir, devices=4)


def test_a_resumed_run_ends_with_the_same_bits(whole_run, tmp_path):
    workdir, losses, state_hash = whole_run
    assert len(losses) == 4
    assert np.isfinite(losses).all()
    shutil.copytree(workdir, tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut/checkpoints/4")
    (tmp_path / "cut/metrics.jsonl").unlink()
    assert losses_and_hash(recipe(), tmp_path / "cut", devices=4) == (losses[2:], state_hash)


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "changes"), [(1, {}), (8, {}), (4, {"mesh.fsdp": 2}), (1, {"model.remat": True})])
def test_devices_and_remat_do_not_matter(whole_run, tmp_path, devices, changes):
    losses, _ = losses_and_hash(recipe(**changes), tmp_path, devices)
    np.testing.assert_allclose(losses, whole_run[1], rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.num_masks": 3}, "can share 1, 2, 4, 8 masks"),
        ({"model.num_masks": 16}, "can share 1, 2, 4, 8 masks"),  # 16 images a batch, but 8 a micro-batch
        ({"model.variant": "vit_b"}, "is a ViT in a recipe for a Swin"),
        ({"model.variant": "swin_xxl"}, "swin_t, swin_s, swin_b, swin_l"),
        ({"model.decoder.width": (8,)}, "one for each tap"),
        ({"image_size": (36, 32)}, "the 8 px mask units"),
    ],
)
def test_what_cannot_work_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message) as error:
        build_task(recipe(**changes), "")
    assert "\n" not in str(error.value)


def test_norms_tables_and_tokens_are_not_decayed():
    task, _ = build_task(recipe(), "")
    rules = {
        "encoder/stages/0/blocks/0/attention/qkv/kernel": True,
        "encoder/stages/0/merging/reduction/kernel": True,
        "decoders/0/predict/kernel": True,
        "encoder/stages/0/blocks/0/attention/relative_position_bias": False,
        "encoder/stages/0/blocks/0/attention/qkv/bias": False,
        "encoder/stages/0/merging/norm/scale": False,
        "decoders/0/mask_token": False,
    }
    for path, decayed in rules.items():
        assert [value for pattern, value in task.weight_decay_rules if re.search(pattern, path)] == [decayed]
