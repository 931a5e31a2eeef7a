"""Saving, keeping and restoring, on tiny states, in this process."""

import contextlib
import logging
import resource
import shutil
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from localmim_jax.engine import mesh
from localmim_jax.engine.checkpoints import manifest, orbax_io
from localmim_jax.engine.checkpoints.read import complete_steps, find_checkpoint, load_params
from localmim_jax.engine.checkpoints.write import Checkpointer
from localmim_jax.engine.settings import CheckpointSettings, MeshSettings
from localmim_jax.errors import ConfigError, StorageError


def make_state(value: int, num_devices: int = 1, fsdp: int = 1) -> dict:
    kernel = jnp.arange(64 * 64, dtype=jnp.float32).reshape(64, 64) + float(value)
    params = {
        "encoder": {"kernel": kernel, "bias": jnp.full(64, float(value))},
        "decoders": {"0": {"scale": jnp.ones(8)}},
    }
    state = {
        "params": params,
        "model_state": {},
        "opt_state": {"mu": jax.tree.map(lambda leaf: leaf * 2, params), "count": jnp.int32(value)},
        "ema": {},
        "half": jnp.full((4,), value, jnp.bfloat16),
        "step": jnp.int32(value),
    }
    devices = mesh.make_mesh(MeshSettings(fsdp=fsdp), jax.devices()[:num_devices])
    return jax.device_put(state, mesh.state_shardings(devices, state))


def abstract(state: dict) -> dict:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)


def assert_equal(found: dict, expected: dict) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for path, leaf in jax.tree_util.tree_leaves_with_path(expected):
        np.testing.assert_array_equal(
            np.asarray(dict(jax.tree_util.tree_leaves_with_path(found))[path]), np.asarray(leaf), err_msg=str(path)
        )


def write_steps(directory: Path, steps, settings: CheckpointSettings | None = None, scores=None) -> None:
    checkpointer = Checkpointer(directory, settings or CheckpointSettings(keep_last=10))
    for step in steps:
        checkpointer.save(step, make_state(step), (scores or {}).get(step))
    checkpointer.close()


def restore_latest(directory: Path, target: dict | None = None):
    checkpointer = Checkpointer(directory, CheckpointSettings())
    try:
        return checkpointer.restore_latest(abstract(make_state(0)) if target is None else target)
    finally:
        checkpointer.close()


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory) -> Path:
    """A run directory with steps 1 and 2, to be copied and damaged."""
    workdir = tmp_path_factory.mktemp("run")
    write_steps(workdir / "checkpoints", [1, 2])
    return workdir


@pytest.fixture
def workdir(two_steps, tmp_path) -> Path:
    shutil.copytree(two_steps, tmp_path / "run")
    return tmp_path / "run"


def test_saves_and_restores_every_bit(tmp_path):
    write_steps(tmp_path / "checkpoints", [3, 8])
    step, state = restore_latest(tmp_path / "checkpoints")
    assert step == 8
    assert_equal(state, make_state(8))


def test_nothing_saved_is_none(tmp_path):
    assert restore_latest(tmp_path / "new" / "checkpoints") is None


def test_an_older_step_can_be_asked_for(workdir):
    checkpointer = Checkpointer(workdir / "checkpoints", CheckpointSettings())
    assert_equal(checkpointer.restore(1, abstract(make_state(0))), make_state(1))
    checkpointer.close()


def test_state_may_be_donated_while_it_is_written(tmp_path):
    """A stale or overwritten buffer would show here: twenty donated steps run while a large state is written."""
    step = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
    sharding = NamedSharding(mesh.make_mesh(MeshSettings(), jax.devices()[:1]), PartitionSpec())
    state = {str(i): jax.device_put(jnp.full((512, 1024), float(i)), sharding) for i in range(8)}
    target = abstract(state)
    checkpointer = Checkpointer(tmp_path / "checkpoints", CheckpointSettings(keep_last=3))
    for index in range(61):
        if index % 20 == 0:
            checkpointer.save(index, state)
        state = step(state)
    for saved in (20, 40, 60):
        restored = checkpointer.restore(saved, target)
        for name, leaf in restored.items():
            np.testing.assert_array_equal(np.asarray(leaf), float(name) + saved)
    checkpointer.close()


@pytest.mark.parametrize(("num_devices", "fsdp"), [(1, 1), (4, 4), (8, 2)])
def test_restores_onto_other_devices(tmp_path, num_devices, fsdp):
    checkpointer = Checkpointer(tmp_path / "checkpoints", CheckpointSettings())
    checkpointer.save(5, make_state(5, num_devices=4, fsdp=2))
    checkpointer.close()
    target = abstract(make_state(0, num_devices, fsdp))
    _, state = restore_latest(tmp_path / "checkpoints", target)
    assert_equal(state, make_state(5))
    assert all(
        leaf.sharding == want.sharding for leaf, want in zip(*map(jax.tree.leaves, (state, target)), strict=True)
    )


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"keep_last": 1}, [10]),
        ({"keep_last": 2}, [9, 10]),
        ({"keep_last": 1, "keep_every_steps": 4}, [4, 8, 10]),
    ],
)
def test_keeping(tmp_path, settings, kept):
    write_steps(tmp_path / "checkpoints", range(1, 11), CheckpointSettings(**settings))
    assert complete_steps(tmp_path / "checkpoints") == kept
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == sorted(map(str, kept))


def test_the_best_score_is_kept_also_after_a_restart(tmp_path):
    directory, settings = tmp_path / "checkpoints", CheckpointSettings(keep_last=1)
    write_steps(directory, [1, 2, 3], settings, scores={1: 0.2, 2: 0.9, 3: 0.5})
    assert complete_steps(directory) == [2, 3]
    write_steps(directory, [4, 5], settings, scores={4: 0.91})
    assert complete_steps(directory) == [4, 5]


def test_a_step_is_saved_once(tmp_path):
    checkpointer = Checkpointer(tmp_path / "checkpoints", CheckpointSettings())
    checkpointer.save(1, make_state(1))
    checkpointer.save(1, make_state(2))
    checkpointer.close()
    assert_equal(restore_latest(tmp_path / "checkpoints")[1], make_state(1))


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


def test_a_step_without_manifest_does_not_count_and_is_replaced(workdir, caplog):
    directory = workdir / "checkpoints"
    (directory / "2" / "manifest.json").unlink()
    with caplog.at_level(logging.WARNING, "absl"):
        checkpointer = Checkpointer(directory, CheckpointSettings())
    assert f"{directory / '2'} has no manifest" in caplog.text
    assert checkpointer.restore_latest(abstract(make_state(0)))[0] == 1
    checkpointer.save(2, make_state(2))
    checkpointer.close()
    step, state = restore_latest(directory)
    assert step == 2
    assert_equal(state, make_state(2))


def test_lost_manifests_are_not_a_fresh_start(workdir):
    for step in "12":
        (workdir / "checkpoints" / step / "manifest.json").unlink()
    with pytest.raises(StorageError, match=r"without a manifest \(1, 2\)"):
        restore_latest(workdir / "checkpoints")


def test_strangers_are_ignored_with_a_warning(workdir, caplog):
    directory = workdir / "checkpoints"
    (directory / "999999").mkdir()
    (directory / "best").mkdir()
    (directory / "1000").write_text("not a directory")
    (directory / "7.orbax-checkpoint-tmp-3").mkdir()
    with caplog.at_level(logging.WARNING, "absl"):
        assert restore_latest(directory)[0] == 2
    assert all(f"{directory / name} has no manifest" in caplog.text for name in ("999999", "best", "1000"))
    assert sorted(path.name for path in directory.iterdir()) == ["1", "1000", "2", "999999", "best"]


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


@contextlib.contextmanager
def file_size_limit(num_bytes: int):
    """The nearest thing to a full disk that needs no mount: writing more to one file fails with "File too large"."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_surfaces_at_the_next_check_and_leaves_the_old_steps(tmp_path, caplog):
    directory = tmp_path / "checkpoints"
    state = {"large": jnp.ones((1024, 1024))}
    checkpointer = Checkpointer(directory, CheckpointSettings())
    checkpointer.save(1, state)
    checkpointer._join()
    with caplog.at_level(logging.WARNING, "absl"), file_size_limit(2**20):
        checkpointer.save(2, state)
        checkpointer._join()
    assert "saving step 2 failed, trying once more" in caplog.text
    assert "orbax" not in caplog.text.replace(".orbax-checkpoint-tmp", "")  # it would add kilobytes of tracebacks
    with pytest.raises(StorageError, match=r"step 2 could not be saved in .*checkpoints: File too large$"):
        checkpointer.check()
    assert [path.name for path in directory.iterdir()] == ["1"]
    checkpointer.check()  # told once
    checkpointer.save(2, state)  # and not taken for saved
    checkpointer.close()
    assert complete_steps(directory) == [1, 2]


def test_space_is_asked_for_before_writing(tmp_path, monkeypatch):
    free = [2**20, 2**30]  # too little for the first of two attempts
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=2**40, free=free.pop(0)))
    checkpointer = Checkpointer(tmp_path / "checkpoints", CheckpointSettings())
    state = {"large": jnp.ones((1024, 1024))}
    checkpointer.save(1, state)
    checkpointer._join()
    assert checkpointer.steps() == [1]
    free += [2**20, 2**20]
    checkpointer.save(2, state)
    with pytest.raises(StorageError, match=r"No space left on device: 4\.0 MiB needed, 1\.0 MiB free$"):
        checkpointer.close()
    assert checkpointer.steps() == [1]


def test_closing_tells_of_a_failed_save(tmp_path):
    checkpointer = Checkpointer(tmp_path / "checkpoints", CheckpointSettings())
    with file_size_limit(2**20):
        checkpointer.save(1, {"large": jnp.ones((1024, 1024))})
        with pytest.raises(StorageError, match="step 1 could not be saved"):
            checkpointer.close()


def test_a_passing_failure_is_retried_with_the_state_as_it_was(tmp_path, monkeypatch):
    calls, really_save = [], orbax_io.save

    def fail_once(checkpointer, directory, state):
        calls.append(directory)
        if len(calls) == 1:
            raise OSError(28, "No space left on device")
        really_save(checkpointer, directory, state)

    monkeypatch.setattr(orbax_io, "save", fail_once)
    state = make_state(3)
    checkpointer = Checkpointer(tmp_path / "checkpoints", CheckpointSettings())
    checkpointer.save(3, state)
    jax.tree.map(lambda leaf: leaf.delete(), state)  # as donation would
    checkpointer.close()
    assert len(calls) == 2
    assert_equal(restore_latest(tmp_path / "checkpoints")[1], make_state(3))


def test_a_vanished_directory_is_a_storage_error(tmp_path):
    checkpointer = Checkpointer(tmp_path / "checkpoints", CheckpointSettings())
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(StorageError, match=r"step 1 is not saved: .* was removed while the run went on"):
        checkpointer.save(1, make_state(1))


def test_a_directory_put_in_the_place_of_a_removed_one_is_not_written_to(tmp_path):
    directory = tmp_path / "checkpoints"
    checkpointer = Checkpointer(directory, CheckpointSettings())
    shutil.rmtree(directory)
    directory.mkdir()
    with pytest.raises(StorageError, match="step 1 is not saved"):
        checkpointer.save(1, make_state(1))
    checkpointer.close()
    assert not list(directory.iterdir())


def test_a_directory_under_a_file_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Not a directory"):
        Checkpointer(tmp_path / "file" / "checkpoints", CheckpointSettings())


@pytest.mark.parametrize("where", [".", "checkpoints", "checkpoints/2"])
def test_parameters_load_anywhere(workdir, where):
    encoder = load_params(workdir / where, "params/encoder")
    assert sorted(encoder) == ["bias", "kernel"]
    assert all(type(leaf) is np.ndarray for leaf in encoder.values())
    np.testing.assert_array_equal(encoder["bias"], np.full(64, 2, np.float32))
    assert jax.tree.structure(load_params(workdir / where)) == jax.tree.structure(make_state(0)["params"])
    assert load_params(workdir / where, "model_state") == {}


@pytest.mark.parametrize("where", [".", "checkpoints", "checkpoints/2"])
def test_a_run_still_training_is_read_at_one_step(workdir, where):
    step = find_checkpoint(workdir / where)
    assert step == workdir / "checkpoints" / "2"
    write_steps(workdir / "checkpoints", [3])
    np.testing.assert_array_equal(load_params(step, "params/encoder")["bias"], np.full(64, 2, np.float32))


def test_loading_names_what_is_missing(workdir, tmp_path):
    with pytest.raises(ConfigError, match="no 'params/teacher'; params has decoders, encoder"):
        load_params(workdir, "params/teacher")
    with pytest.raises(ConfigError, match="the state has ema, half, model_state, opt_state, params, step"):
        load_params(workdir, "weights")
    with pytest.raises(StorageError, match="holds no complete checkpoint"):
        load_params(tmp_path)


def test_loading_falls_back_but_moves_nothing(workdir):
    (workdir / "checkpoints" / "2" / "state" / "manifest.ocdbt").write_bytes(b"")
    np.testing.assert_array_equal(load_params(workdir)["encoder"]["bias"], np.full(64, 1, np.float32))
    assert complete_steps(workdir / "checkpoints") == [1, 2]
    with pytest.raises(StorageError, match=r"manifest\.ocdbt has 0 bytes"):
        load_params(workdir / "checkpoints" / "2")


def test_a_checkpoint_of_a_later_version_is_not_taken_for_damaged(workdir, monkeypatch):
    monkeypatch.setattr(manifest, "FORMAT", 0)
    with pytest.raises(ConfigError, match="has checkpoint format 1, this version reads up to 0"):
        restore_latest(workdir / "checkpoints")
    assert complete_steps(workdir / "checkpoints") == [1, 2]
