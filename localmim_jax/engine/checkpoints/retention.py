"""Which steps of a run stay on disk. Manifests decide, since orbax would count steps that were never published."""

import math
import os
import shutil
from pathlib import Path

from absl import logging

from localmim_jax.engine.checkpoints import manifest
from localmim_jax.engine.checkpoints.read import complete_steps
from localmim_jax.engine.settings import CheckpointSettings
from localmim_jax.errors import StorageError

_TEMPORARY = ".orbax-checkpoint-tmp"
_REMOVING = ".removing"


def remove_old(directory: Path, settings: CheckpointSettings) -> None:
    """Removes the steps that the settings do not keep. Raises OSError where one cannot be removed."""
    steps = complete_steps(directory)
    keep = set(steps[-settings.keep_last :])
    if settings.keep_every_steps:
        keep |= {step for step in steps if step % settings.keep_every_steps == 0}
    scores = {step: score for step in steps if (score := _score(directory / str(step))) is not None}
    if scores:
        keep.add(max(scores, key=lambda step: (scores[step], step)))
    for step in steps:
        if step not in keep:
            remove(directory / str(step))


def remove(step_directory: Path) -> None:
    """Removes one step.

    One rename hides the step first, so a process killed during the removal leaves nothing that looks like a damaged
    checkpoint.
    """
    hidden = step_directory.with_name(step_directory.name + _REMOVING)
    shutil.rmtree(hidden, ignore_errors=True)
    os.rename(step_directory, hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def remove_leftovers(directory: Path) -> None:
    """Removes the unfinished writes and removals of a run that died or of an attempt that failed."""
    for path in directory.iterdir():
        if _TEMPORARY in path.name or path.name.endswith(_REMOVING):
            logging.warning("removing %s, left by an unfinished save or removal", path)
            shutil.rmtree(path, ignore_errors=True)


def warn_of_incomplete(directory: Path) -> None:
    """Names everything in a `checkpoints/` directory that is not a published step."""
    complete = set(map(str, complete_steps(directory)))
    for path in sorted(directory.iterdir()):
        if path.name not in complete:
            logging.warning("%s has no manifest, so it is not a complete checkpoint: ignored", path)


def _score(step_directory: Path) -> float | None:
    try:
        score = manifest.read(step_directory).score
    except StorageError:
        return None
    return None if score is None or math.isnan(score) else score
