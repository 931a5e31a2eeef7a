"""`data.json` in the run directory: what the run trains on. A resumed run must find the same, or be told otherwise."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from absl import logging

from localmim_jax.engine.task import Task
from localmim_jax.errors import DataError, StorageError
from localmim_jax.files import read_json, write_json

NAME = "data.json"
ALLOW = "data.allow_change"


def record_data(workdir: Path, task: Task, config: Mapping[str, Any], resuming: bool) -> None:
    """Compares the training set and the number of steps with those recorded, then records them.

    A batch is a function of seed and step over the names in order: other files would change every batch from here on.

    Args:
        workdir: the run directory.
        task: what is trained; its `data` is called once.
        config: the resolved config; its `data.allow_change` accepts a change, with a warning.
        resuming: whether the directory has a checkpoint. Without one, anything may change.

    Raises:
        DataError: the training set has changed since the run was started.
        StorageError: the record is damaged or cannot be written.
    """
    if task.data is None:
        return
    path = workdir / NAME
    found = {**task.data(), "num_steps": task.num_steps}
    before = _read(path) if resuming else {}
    changes = [f"{key} {before[key]} -> {found[key]}" for key in found if key in before and before[key] != found[key]]
    if "fingerprint" in before and before["fingerprint"] != found["fingerprint"]:
        shown = [text for text in changes if not text.startswith("fingerprint")]
        what = "; ".join(shown) or "as many examples, but other names or sizes of files"
        message = f"the training set of {workdir} has changed since it was recorded ({what})"
        if not (config.get("data") or {}).get("allow_change"):
            raise DataError(
                f"{message}: all later batches would differ; restore the data, or accept the change with "
                f"--config.{ALLOW}=true"
            )
        logging.warning("%s; accepted by %s", message, ALLOW)
    if jax.process_index() == 0 and before != found:
        write_json(path, found)


def _read(path: Path) -> dict[str, Any]:
    """The record; {} in a run that was started before there was one."""
    try:
        return read_json(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StorageError(
            f"{path} is damaged ({error}): remove it to accept the data that are found now as the run's"
        ) from error
