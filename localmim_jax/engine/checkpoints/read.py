"""Read-only access to checkpoints: the complete steps of a run, its newest whole step, and parts of a state as numpy.

The format is described in `write`.
"""

import os
from pathlib import Path

import jax
from absl import logging

from localmim_jax.engine.checkpoints import manifest, orbax_io
from localmim_jax.errors import ConfigError, StorageError
from localmim_jax.params import Tree


def complete_steps(directory: Path) -> list[int]:
    """The steps in a `checkpoints/` directory that have a manifest, ascending; [] if there is no such directory."""
    if not directory.is_dir():
        return []
    names = [path.name for path in directory.iterdir() if manifest.exists(path)]
    return sorted(int(name) for name in names if name.isdecimal() and str(int(name)) == name)


def load_params(path: str | os.PathLike[str], subtree: str = "params") -> Tree:
    """Part of a checkpoint as numpy arrays. The devices may differ from those of the run.

    Args:
        path: as for `find_checkpoint`.
        subtree: path inside the state: "params", "params/encoder", "ema/encoder", "model_state".

    Returns:
        Nested dict as saved; {} for a subtree that is empty.

    Raises:
        StorageError: the path has no checkpoint, or it is damaged.
        ConfigError: the checkpoint has no such subtree; names what it has.
    """
    directory = find_checkpoint(path)
    keys = subtree.split("/")
    part = orbax_io.saved_tree(directory)
    for depth, key in enumerate(keys):
        if not isinstance(part, dict) or part.get(key) is None:
            where = "/".join(keys[:depth]) or "the state"
            raise ConfigError(f"{directory} has no {subtree!r}; {where} has {', '.join(sorted(part))}")
        part = part[key]
    if not jax.tree.leaves(part):
        return {}
    for key in reversed(keys):
        part = {key: part}
    loaded = orbax_io.restore_part(directory, part)
    for key in keys:
        loaded = loaded[key]
    return loaded


def find_checkpoint(path: str | os.PathLike[str]) -> Path:
    """The directory of one step: the given step, or the newest that verifies in a run directory or its `checkpoints/`.

    Call this first to read several parts of a run that is still training, so that all are of the same step.

    Raises:
        StorageError: the path has no checkpoint, or it is damaged.
    """
    path = Path(path).expanduser().absolute()
    if manifest.exists(path):
        manifest.verify(path)
        return path
    root = path if complete_steps(path) else path / "checkpoints"
    reasons = []
    for step in reversed(complete_steps(root)):
        try:
            manifest.verify(root / str(step))
        except StorageError as error:
            logging.error("checkpoint %d is damaged, trying an older one: %s", step, error)
            reasons.append(str(error))
            continue
        return root / str(step)
    raise StorageError(f"{path} holds no complete checkpoint{': ' if reasons else ''}{'; '.join(reasons)}")
