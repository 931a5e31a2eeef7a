"""The state that a run resumes from: its newest step that verifies. Damaged steps are moved to `quarantine/`."""

import os
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from localmim_jax.engine.checkpoints import manifest, orbax_io
from localmim_jax.engine.checkpoints.read import complete_steps
from localmim_jax.errors import StorageError

_NONE, _ALL_DAMAGED = -1, -2


def restore(directory: Path, step: int, abstract_state: Any) -> Any:
    """The state of one step of a `checkpoints/` directory, verified. Raises as `restore_latest`, but moves nothing."""
    manifest.verify(directory / str(step))
    return orbax_io.restore(directory / str(step), abstract_state)


def restore_latest(directory: Path, abstract_state: Any) -> tuple[int, Any] | None:
    """The newest step that verifies, and its state; None if nothing was ever saved here.

    A step that does not verify is moved to `quarantine/` beside the directory, and the next older one is tried. With
    several processes all of them must call this; the first one decides.

    Args:
        directory: the run's `checkpoints/`.
        abstract_state: pytree of `jax.ShapeDtypeStruct` with sharding, for any number of devices.

    Raises:
        StorageError: checkpoints exist, or did, but none is whole.
        ConfigError: the checkpoint is of another model: paths, shapes or dtypes differ.
    """
    problem: StorageError | None = None
    step = _NONE
    if jax.process_index() == 0:
        try:
            step = _newest_whole(directory)
        except StorageError as error:
            step, problem = _ALL_DAMAGED, error
    if jax.process_count() > 1:
        step = int(multihost_utils.broadcast_one_to_all(np.int32(step)))
    if step == _ALL_DAMAGED:
        raise problem or StorageError(f"no checkpoint in {directory} is whole; see the first process's log")
    return None if step == _NONE else (step, orbax_io.restore(directory / str(step), abstract_state))


def _newest_whole(directory: Path) -> int:
    damaged = []
    for step in reversed(complete_steps(directory)):
        try:
            manifest.verify(directory / str(step))
        except StorageError as error:
            place = _set_aside(directory, step)
            damaged.append(f"{step} ({error})")
            logging.error("CHECKPOINT %d IS DAMAGED, moved to %s: %s", step, place, error)
            continue
        if damaged:
            logging.error("resuming from the older step %d", step)
        return step
    quarantine = _quarantine(directory)
    if damaged:
        raise StorageError(f"every checkpoint is damaged: {'; '.join(damaged)}; they are now in {quarantine}")
    if quarantine.is_dir() and any(quarantine.iterdir()):
        raise StorageError(
            f"no checkpoint is left in {directory}, only damaged ones in {quarantine}; repair one and move it back, or "
            "remove that directory to start from step 0"
        )
    unpublished = [path.name for path in directory.iterdir() if (path / orbax_io.ITEM / "_METADATA").exists()]
    if len(unpublished) > 1:  # a crash during the first save leaves one, never two
        names = ", ".join(sorted(unpublished))
        raise StorageError(f"{directory} has checkpoints without a manifest ({names}); move them away first")
    return _NONE


def _set_aside(directory: Path, step: int) -> Path:
    quarantine = _quarantine(directory)
    place = quarantine / f"{step}-{time.strftime('%Y%m%d-%H%M%S')}"
    try:
        quarantine.mkdir(exist_ok=True)
        os.rename(directory / str(step), place)
    except OSError as error:
        raise StorageError(f"damaged checkpoint {step} cannot be moved to {place}: {error.strerror}") from error
    return place


def _quarantine(directory: Path) -> Path:
    return directory.parent / "quarantine"
