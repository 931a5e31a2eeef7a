"""Saves that can be trusted: orbax writes in the background, and a step counts only once its manifest exists.

A step is the directory `checkpoints/<step>/` with orbax's files under `state/` and `manifest.json` (see `manifest`).
Orbax writes to a temporary name and renames it. Then the first process hashes the files and publishes the manifest.
Only then are older steps removed (`retention`). A run killed anywhere in between resumes from the step before
(`restore`). A step without a manifest is ignored, and replaced when the same step is saved again. The score of an
evaluation, which comes after the save, is added to the manifest.
"""

import errno
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import jax
from absl import logging

from localmim_jax import faults
from localmim_jax.engine.checkpoints import manifest, orbax_io, restore, retention
from localmim_jax.engine.checkpoints.read import complete_steps
from localmim_jax.engine.settings import CheckpointSettings
from localmim_jax.errors import StorageError


class Checkpointer:
    """The checkpoints of one run. One run at a time may write to a directory (`lock`).

    With several processes all of them call `save`, `restore` and `restore_latest`, with the same steps.

    Args:
        directory: the run's `checkpoints/`; made if missing. Damaged steps are moved to `quarantine/` beside it.
        settings: which steps are kept.

    Raises:
        StorageError: the directory cannot be made or read.
    """

    def __init__(self, directory: Path, settings: CheckpointSettings):
        self._directory = Path(directory).absolute()
        self._settings = settings
        self._several = jax.process_count() > 1
        self._writer = jax.process_index() == 0
        self._orbax = orbax_io.writer()
        self._thread: threading.Thread | None = None
        self._failure: StorageError | None = None
        self._saved: set[int] = set()
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            if self._writer:
                retention.remove_leftovers(self._directory)
                retention.warn_of_incomplete(self._directory)
            # The open descriptor identifies the directory: if it is removed, orbax would create another one.
            self._opened = os.open(self._directory, os.O_RDONLY)
        except OSError as error:
            raise StorageError(f"{self._directory} cannot be used: {error.strerror}") from error

    def steps(self) -> list[int]:
        """Steps with a manifest, ascending. Their files are not read."""
        return complete_steps(self._directory)

    def restore_latest(self, abstract_state: Any) -> tuple[int, Any] | None:
        """The newest step that verifies, and its state; see `restore.restore_latest`."""
        self._join()
        found = restore.restore_latest(self._directory, abstract_state)
        if found is not None:
            self._saved.add(found[0])
        return found

    def restore(self, step: int, abstract_state: Any) -> Any:
        """The state of one step; see `restore.restore`."""
        self._join()
        state = restore.restore(self._directory, step, abstract_state)
        self._saved.add(step)
        return state

    def save(self, step: int, state: Any) -> None:
        """Starts saving; the state may be donated to the next step as soon as this returns.

        Waits for the save before it, if that is still under way. A step that this object saved or restored before is
        not saved again.

        Args:
            state: pytree of arrays.

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
        self._thread = threading.Thread(target=self._finish, args=(step, state), name="checkpoint")
        self._thread.start()

    def rate(self, step: int, score: float) -> None:
        """Records the score of a saved step. The step with the highest is kept whatever its age.

        Waits for the save, if that is still under way, and removes the step that was the best before.

        Raises:
            StorageError: the save failed, or the score cannot be written.
        """
        self._join()
        self.check()
        if not self._writer:
            return
        self._require_directory(step)
        try:
            manifest.rate(self._directory / str(step), score)
            retention.remove_old(self._directory, self._settings)
        except OSError as error:
            raise self._explain(step, error) from error

    def check(self) -> None:
        """Returns at once. Raises StorageError if a save has failed in the background since the last call."""
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

    def _begin(self, step: int, state: Any) -> None:
        target = self._directory / str(step)
        if self._writer and target.exists():
            retention.remove(target)
        orbax_io.save(self._orbax, target, state)

    def _finish(self, step: int, state: Any) -> None:
        """Runs in the background, to the end of the save."""
        try:
            if self._several:
                self._commit(step)
            else:
                self._write_with_one_retry(step, state)
            if self._writer:
                retention.remove_old(self._directory, self._settings)
        except Exception as error:
            self._saved.discard(step)
            self._failure = self._explain(step, error)
            logging.error("%s", self._failure)

    def _write_with_one_retry(self, step: int, state: Any) -> None:
        for last in (False, True):
            try:
                self._require_space(state)
                self._begin(step, state)
                return self._commit(step)
            except StorageError:
                raise  # the directory is another one: nothing of ours is in it
            except Exception as error:
                self._require_directory(step)
                retention.remove_leftovers(self._directory)
                if last:
                    raise
                logging.warning("saving step %d failed, trying once more: %s", step, orbax_io.reason(error))

    def _require_directory(self, step: int) -> None:
        """Raises StorageError if the directory was removed, even if another one has its name."""
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

    def _commit(self, step: int) -> None:
        """Waits for orbax's rename, which follows the last write of every process; then publishes."""
        self._orbax.wait_until_finished()
        self._require_directory(step)
        faults.crash_at("after_write", step)
        if self._writer:
            manifest.publish(self._directory / str(step), step)

    def _explain(self, step: int, error: Exception) -> StorageError:
        failure = orbax_io.storage_error(f"step {step} could not be saved in {self._directory}", error)
        failure.__cause__ = error
        return failure

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None
