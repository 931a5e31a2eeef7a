"""Checkpoints that can be trusted: written in the background by orbax, counted only once their manifest exists, and
verified byte for byte before use.

On disk a step is `checkpoints/<step>/`: orbax's files under `state/` and `manifest.json` (see `engine.manifest`).
Orbax writes to a temporary name and renames; then the first process hashes the files and publishes the manifest; only
then are older steps removed. Killed anywhere in between, the run resumes from the step before. Which steps are kept is
decided here, by manifests, since orbax would count steps that were never published. A step without a manifest is
ignored, and removed when the same step is saved again. Reading without a run: `engine.saved`.
"""

import errno
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from localmim_jax import faults
from localmim_jax.engine.checkpoints import manifest, orbax_io
from localmim_jax.engine.checkpoints.read import complete_steps
from localmim_jax.engine.settings import CheckpointSettings
from localmim_jax.errors import StorageError

_TEMPORARY = ".orbax-checkpoint-tmp"
_REMOVING = ".removing"
_NONE, _ALL_BAD = -1, -2


class Checkpointer:
    """Saves, keeps and restores the steps of one run. One at a time may write to a directory (`engine.lock`).

    With several processes all of them call `save`, `restore` and `restore_latest`, with the same steps.

    Args:
        directory: the run's `checkpoints/`; made if missing. Damaged steps are moved to `quarantine/` beside it.
        settings: which steps are kept.

    Raises:
        StorageError: the directory cannot be made or tidied.
    """

    def __init__(self, directory: Path, settings: CheckpointSettings):
        self._directory = Path(directory).absolute()
        self._settings = settings
        self._quarantine = self._directory.parent / "quarantine"
        self._several = jax.process_count() > 1
        self._writer = jax.process_index() == 0
        self._orbax = orbax_io.writer()
        self._thread: threading.Thread | None = None
        self._failure: StorageError | None = None
        self._saved: set[int] = set()
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            if self._writer:
                self._remove_leftovers()
                self._warn_of_strangers()
            # Held open, so that it is known again: orbax would make a removed directory anew, with all above it.
            self._opened = os.open(self._directory, os.O_RDONLY)
        except OSError as error:
            raise StorageError(f"{self._directory} cannot be used: {error.strerror}") from error

    def steps(self) -> list[int]:
        """Steps with a manifest, ascending. Their files are not read."""
        return complete_steps(self._directory)

    def save(self, step: int, state: Any, score: float | None = None) -> None:
        """Starts saving; the state may be donated to the next step as soon as this returns.

        Waits for the save before it, if that is still under way. A step saved before by this object is not saved again.

        Args:
            state: pytree of arrays.
            score: the checkpoint with the highest is kept whatever its age; None without an evaluation at this step.

        Raises:
            StorageError: this save or the one before failed.
        """
        self._join()
        self.check()
        if step in self._saved:
            return
        faults.crash_at("before_save", step)
        self._require_directory(step)
        if self._several:
            try:
                self._begin(step, state)
            except Exception as error:
                raise self._explain(step, error) from error
        else:
            # A host copy that outlives the donated arrays, so that a failed write can be tried again.
            state = jax.device_get(state)
        self._saved.add(step)
        self._thread = threading.Thread(target=self._finish, args=(step, state, score), name="checkpoint")
        self._thread.start()

    def check(self) -> None:
        """Returns at once. Raises StorageError if a save has failed in the background since it was last asked."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Waits for the save in flight, if any. Raises StorageError if it failed."""
        self._join()
        self._orbax.close()
        if self._opened >= 0:
            os.close(self._opened)
            self._opened = -1
        self.check()

    def restore_latest(self, abstract_state: Any) -> tuple[int, Any] | None:
        """The newest step that verifies, and its state; None if nothing was ever saved here.

        A step that does not verify is moved to `quarantine/` and the next older one is tried.

        Args:
            abstract_state: pytree of `jax.ShapeDtypeStruct` with sharding, for any number of devices.

        Raises:
            StorageError: checkpoints exist, or did, but none is whole.
            ConfigError: the checkpoint is of another model: paths, shapes or dtypes differ.
        """
        self._join()
        problem: StorageError | None = None
        step = _NONE
        if self._writer:
            try:
                step = self._newest_good()
            except StorageError as error:
                step, problem = _ALL_BAD, error
        if self._several:
            step = int(multihost_utils.broadcast_one_to_all(np.int32(step)))
        if step == _ALL_BAD:
            raise problem or StorageError(f"no checkpoint in {self._directory} is whole; see the first process's log")
        return None if step == _NONE else (step, self._restore(step, abstract_state))

    def restore(self, step: int, abstract_state: Any) -> Any:
        """The state of one step, verified. Raises as `restore_latest`, but moves nothing."""
        self._join()
        manifest.verify(self._directory / str(step))
        return self._restore(step, abstract_state)

    # Saving

    def _begin(self, step: int, state: Any) -> None:
        target = self._directory / str(step)
        if self._writer and target.exists():
            _remove(target)
        orbax_io.save(self._orbax, target, state)

    def _finish(self, step: int, state: Any, score: float | None) -> None:
        """Runs in the background, to the end of the save."""
        try:
            if self._several:
                self._commit(step, score)
            else:
                self._write_twice_at_most(step, state, score)
            if self._writer:
                self._remove_old()
        except Exception as error:
            self._saved.discard(step)
            self._failure = self._explain(step, error)
            logging.error("%s", self._failure)

    def _write_twice_at_most(self, step: int, state: Any, score: float | None) -> None:
        for last in (False, True):
            try:
                self._require_space(state)
                self._begin(step, state)
                return self._commit(step, score)
            except StorageError:
                raise  # the directory is another one: nothing of ours is in it
            except Exception as error:
                self._require_directory(step)
                self._remove_leftovers()
                if last:
                    raise
                logging.warning("saving step %d failed, trying once more: %s", step, orbax_io.reason(error))

    def _require_directory(self, step: int) -> None:
        """Raises StorageError if the directory was removed, even if there is another of its name."""
        try:
            same = os.path.samestat(os.fstat(self._opened), os.stat(self._directory))
        except OSError:
            same = False
        if not same:
            raise StorageError(f"step {step} is not saved: {self._directory} was removed while the run went on")

    def _require_space(self, state: Any) -> None:
        """Raises OSError where the file system says that the state does not fit, before anything is written."""
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        disk = shutil.disk_usage(self._directory)
        if disk.total and disk.free < needed:  # some network file systems say 0 of 0
            text = f"No space left on device: {needed / 2**20:.1f} MiB needed, {disk.free / 2**20:.1f} MiB free"
            raise OSError(errno.ENOSPC, text)

    def _commit(self, step: int, score: float | None) -> None:
        """Waits for orbax's rename, which follows the last write of every process; then publishes."""
        self._orbax.wait_until_finished()
        self._require_directory(step)
        faults.crash_at("after_write", step)
        if self._writer:
            manifest.publish(self._directory / str(step), step, score)

    def _explain(self, step: int, error: Exception) -> StorageError:
        failure = orbax_io.storage_error(f"step {step} could not be saved in {self._directory}", error)
        failure.__cause__ = error
        return failure

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    # Keeping

    def _remove_old(self) -> None:
        steps = self.steps()
        keep = set(steps[-self._settings.keep_last :])
        if self._settings.keep_every_steps:
            keep |= {step for step in steps if step % self._settings.keep_every_steps == 0}
        scores = {step: score for step in steps if (score := self._score(step)) is not None}
        if scores:
            keep.add(max(scores, key=lambda step: (scores[step], step)))
        for step in steps:
            if step not in keep:
                _remove(self._directory / str(step))

    def _score(self, step: int) -> float | None:
        try:
            return manifest.read(self._directory / str(step)).score
        except StorageError:
            return None

    def _remove_leftovers(self) -> None:
        """Unfinished writes and removals of a run that died, or of an attempt that failed."""
        for path in self._directory.iterdir():
            if _TEMPORARY in path.name or path.name.endswith(_REMOVING):
                logging.warning("removing %s, left by an unfinished save or removal", path)
                shutil.rmtree(path, ignore_errors=True)

    def _warn_of_strangers(self) -> None:
        complete = set(map(str, self.steps()))
        for path in sorted(self._directory.iterdir()):
            if path.name not in complete:
                logging.warning("%s has no manifest, so it is not a complete checkpoint: ignored", path)

    # Restoring

    def _newest_good(self) -> int:
        damaged = []
        for step in reversed(self.steps()):
            try:
                manifest.verify(self._directory / str(step))
            except StorageError as error:
                place = self._set_aside(step)
                damaged.append(f"{step} ({error})")
                logging.error("CHECKPOINT %d IS DAMAGED and now in %s: %s", step, place, error)
                continue
            if damaged:
                logging.error("resuming from the older step %d", step)
            return step
        if damaged:
            raise StorageError(f"every checkpoint is damaged: {'; '.join(damaged)}; they are now in {self._quarantine}")
        if self._quarantine.is_dir() and any(self._quarantine.iterdir()):
            raise StorageError(
                f"no checkpoint is left in {self._directory}, only damaged ones in {self._quarantine}; repair one and "
                "move it back, or remove that directory to start from step 0"
            )
        unpublished = [path.name for path in self._directory.iterdir() if (path / orbax_io.ITEM / "_METADATA").exists()]
        if len(unpublished) > 1:  # one can be left by a crash during the first save, two cannot
            names = ", ".join(sorted(unpublished))
            raise StorageError(f"{self._directory} has checkpoints without a manifest ({names}); move them away first")
        return _NONE

    def _set_aside(self, step: int) -> Path:
        place = self._quarantine / f"{step}-{time.strftime('%Y%m%d-%H%M%S')}"
        try:
            self._quarantine.mkdir(exist_ok=True)
            os.rename(self._directory / str(step), place)
        except OSError as error:
            raise StorageError(f"damaged checkpoint {step} cannot be moved to {place}: {error.strerror}") from error
        return place

    def _restore(self, step: int, abstract_state: Any) -> Any:
        state = orbax_io.restore(self._directory / str(step), abstract_state)
        self._saved.add(step)
        return state


def _remove(step_directory: Path) -> None:
    """Out of sight in one rename, so that a kill half-way leaves nothing that looks like a damaged checkpoint."""
    hidden = step_directory.with_name(step_directory.name + _REMOVING)
    shutil.rmtree(hidden, ignore_errors=True)
    os.rename(step_directory, hidden)
    shutil.rmtree(hidden, ignore_errors=True)
