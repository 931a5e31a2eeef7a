"""Saving in the background, and what a failed save leaves."""

import contextlib
import logging
import resource
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from localmim_jax.engine import mesh
from localmim_jax.engine.checkpoints import orbax_io
from localmim_jax.engine.checkpoints.read import complete_steps
from localmim_jax.engine.checkpoints.write import Checkpointer
from localmim_jax.errors import StorageError
from tests.checkpoints import abstract, assert_equal, make_state, restore_latest, write_steps
from tests.defaults import checkpoint_settings, mesh_settings


def test_saves_and_restores_every_bit(tmp_path):
    write_steps(tmp_path / "checkpoints", [3, 8])
    step, state = restore_latest(tmp_path / "checkpoints")
    assert step == 8
    assert_equal(state, make_state(8))


def test_state_may_be_donated_while_it_is_written(tmp_path):
    """A stale or overwritten buffer would show here: twenty donated steps run while a large state is written."""
    step = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
    sharding = NamedSharding(mesh.make_mesh(mesh_settings(), jax.devices()[:1]), PartitionSpec())
    state = {str(i): jax.device_put(jnp.full((512, 1024), float(i)), sharding) for i in range(8)}
    target = abstract(state)
    checkpointer = Checkpointer(tmp_path / "checkpoints", checkpoint_settings(keep_last=3))
    for index in range(61):
        if index % 20 == 0:
            checkpointer.save(index, state)
        state = step(state)
    for saved in (20, 40, 60):
        restored = checkpointer.restore(saved, target)
        for name, leaf in restored.items():
            np.testing.assert_array_equal(np.asarray(leaf), float(name) + saved)
    checkpointer.close()


def test_a_step_is_saved_once(tmp_path):
    checkpointer = Checkpointer(tmp_path / "checkpoints", checkpoint_settings())
    checkpointer.save(1, make_state(1))
    checkpointer.save(1, make_state(2))
    checkpointer.close()
    assert_equal(restore_latest(tmp_path / "checkpoints")[1], make_state(1))


def test_a_step_without_manifest_does_not_count_and_is_replaced(workdir, caplog):
    directory = workdir / "checkpoints"
    (directory / "2" / "manifest.json").unlink()
    with caplog.at_level(logging.WARNING, "absl"):
        checkpointer = Checkpointer(directory, checkpoint_settings())
    assert f"{directory / '2'} has no manifest" in caplog.text
    assert checkpointer.restore_latest(abstract(make_state(0)))[0] == 1
    checkpointer.save(2, make_state(2))
    checkpointer.close()
    step, state = restore_latest(directory)
    assert step == 2
    assert_equal(state, make_state(2))


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
    checkpointer = Checkpointer(directory, checkpoint_settings())
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
    checkpointer = Checkpointer(tmp_path / "checkpoints", checkpoint_settings())
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
    checkpointer = Checkpointer(tmp_path / "checkpoints", checkpoint_settings())
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
    checkpointer = Checkpointer(tmp_path / "checkpoints", checkpoint_settings())
    checkpointer.save(3, state)
    jax.tree.map(lambda leaf: leaf.delete(), state)  # as donation would
    checkpointer.close()
    assert len(calls) == 2
    assert_equal(restore_latest(tmp_path / "checkpoints")[1], make_state(3))


def test_a_vanished_directory_is_a_storage_error(tmp_path):
    checkpointer = Checkpointer(tmp_path / "checkpoints", checkpoint_settings())
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(StorageError, match=r"step 1 is not saved: .* was removed while the run went on"):
        checkpointer.save(1, make_state(1))


def test_a_directory_put_in_the_place_of_a_removed_one_is_not_written_to(tmp_path):
    directory = tmp_path / "checkpoints"
    checkpointer = Checkpointer(directory, checkpoint_settings())
    shutil.rmtree(directory)
    directory.mkdir()
    with pytest.raises(StorageError, match="step 1 is not saved"):
        checkpointer.save(1, make_state(1))
    checkpointer.close()
    assert not list(directory.iterdir())


def test_a_directory_under_a_file_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Not a directory"):
        Checkpointer(tmp_path / "file" / "checkpoints", checkpoint_settings())
