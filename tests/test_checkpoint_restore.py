"""Restoring: onto other devices, after damage, and into a model that does not fit."""

import logging
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from localmim_jax.engine.checkpoints import manifest
from localmim_jax.engine.checkpoints.read import complete_steps
from localmim_jax.engine.checkpoints.write import Checkpointer
from localmim_jax.errors import ConfigError, StorageError
from tests.checkpoints import abstract, assert_equal, make_state, restore_latest
from tests.defaults import checkpoint_settings


def test_nothing_saved_is_none(tmp_path):
    assert restore_latest(tmp_path / "new" / "checkpoints") is None


def test_an_older_step_can_be_asked_for(workdir):
    checkpointer = Checkpointer(workdir / "checkpoints", checkpoint_settings())
    assert_equal(checkpointer.restore(1, abstract(make_state(0))), make_state(1))
    checkpointer.close()


@pytest.mark.parametrize(("num_devices", "fsdp"), [(1, 1), (4, 4), (8, 2)])
def test_restores_onto_other_devices(tmp_path, num_devices, fsdp):
    checkpointer = Checkpointer(tmp_path / "checkpoints", checkpoint_settings())
    checkpointer.save(5, make_state(5, num_devices=4, fsdp=2))
    checkpointer.close()
    target = abstract(make_state(0, num_devices, fsdp))
    _, state = restore_latest(tmp_path / "checkpoints", target)
    assert_equal(state, make_state(5))
    assert all(
        leaf.sharding == want.sharding for leaf, want in zip(*map(jax.tree.leaves, (state, target)), strict=True)
    )


def damage_each_file(step: Path):
    """Yields (what was done) after truncating, deleting and flipping a bit of each file in turn, and repairs it."""
    for path in sorted(file for file in step.rglob("*") if file.is_file()):
        content = path.read_bytes()
        flipped = bytearray(content)
        flipped[len(content) // 2] ^= 0x10
        for how, damage in (
            ("truncated", lambda path=path, content=content: path.write_bytes(content[: len(content) // 2])),
            ("emptied", lambda path=path: path.write_bytes(b"")),
            ("deleted", path.unlink),
            ("flipped", lambda path=path, flipped=flipped: path.write_bytes(flipped)),
        ):
            damage()
            yield f"{path.relative_to(step)} {how}"
            path.write_bytes(content)


def test_any_damage_to_any_file_is_found(workdir):
    step = workdir / "checkpoints" / "2"
    found = {what: is_whole(step) for what in damage_each_file(step)}
    assert len(found) >= 4 * 8
    assert [what for what, whole in found.items() if whole] == []
    assert is_whole(step)


def is_whole(step: Path) -> bool:
    try:
        return manifest.verify(step).step == int(step.name)
    except StorageError:
        return False


def test_a_damaged_step_is_set_aside_and_the_older_one_used(workdir, caplog):
    data = max((workdir / "checkpoints" / "2").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    with caplog.at_level(logging.ERROR, "absl"):
        step, state = restore_latest(workdir / "checkpoints")
    assert step == 1
    assert_equal(state, make_state(1))
    assert [path.name.split("-")[0] for path in (workdir / "quarantine").iterdir()] == ["2"]
    assert "CHECKPOINT 2 IS DAMAGED" in caplog.text
    assert data.name in caplog.text
    assert complete_steps(workdir / "checkpoints") == [1]


def test_every_step_damaged_is_an_error_that_stays(workdir):
    for step in "12":
        (workdir / "checkpoints" / step / "state" / "_METADATA").unlink()
    with pytest.raises(StorageError, match=r"every checkpoint is damaged: 2 .*_METADATA.*; 1 .*_METADATA"):
        restore_latest(workdir / "checkpoints")
    with pytest.raises(StorageError, match="no checkpoint is left"):  # nor does the next start begin again at step 0
        restore_latest(workdir / "checkpoints")
    shutil.rmtree(workdir / "quarantine")
    assert restore_latest(workdir / "checkpoints") is None


def test_lost_manifests_are_not_a_fresh_start(workdir):
    for step in "12":
        (workdir / "checkpoints" / step / "manifest.json").unlink()
    with pytest.raises(StorageError, match=r"without a manifest \(1, 2\)"):
        restore_latest(workdir / "checkpoints")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["params"]["encoder"].update(bias=jnp.ones(65)), r"bias: saved float32\[64\].*float32\[65\]"),
        (lambda s: s["params"]["encoder"].update(bias=jnp.ones(64, jnp.bfloat16)), r"saved float32.*bfloat16\[64\]"),
        (lambda s: s["params"]["encoder"].pop("bias"), r"encoder/bias: saved float32\[64\], .* asks for nothing"),
        (lambda s: s["params"].update(head=jnp.ones(3)), r"head: saved nothing, .* asks for float32\[3\]"),
    ],
)
def test_another_model_is_refused_with_the_difference(workdir, change, message):
    state = make_state(0)
    change(state)
    with pytest.raises(ConfigError, match=message) as caught:
        restore_latest(workdir / "checkpoints", abstract(state))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_checkpoint_of_a_later_version_is_not_taken_for_damaged(workdir, monkeypatch):
    monkeypatch.setattr(manifest, "FORMAT", 0)
    with pytest.raises(ConfigError, match="has checkpoint format 1, this version reads up to 0"):
        restore_latest(workdir / "checkpoints")
    assert complete_steps(workdir / "checkpoints") == [1, 2]
