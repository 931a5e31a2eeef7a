"""The orbax calls that a checkpoint needs, with errors in one line. A checkpoint has one item, `state`."""

import functools
import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from localmim_jax.errors import ConfigError, StorageError

ITEM = "state"
_SHOWN_DIFFERENCES = 8


def writer() -> ocp.AsyncCheckpointer:
    """A checkpointer that saves in the background, one save at a time. One per run."""
    return ocp.AsyncCheckpointer(_handler())


def save(checkpointer: ocp.AsyncCheckpointer, directory: Path, state: Any) -> None:
    """Copies the state, then writes it to a temporary name in the background and renames that to `directory`.

    With several processes an existing directory is replaced, since only the first one knows whether it exists.
    """
    arguments = ocp.args.Composite(**{ITEM: ocp.args.PyTreeSave(state)})
    checkpointer.save(directory, args=arguments, force=jax.process_count() > 1)


def restore(directory: Path, abstract_state: Any) -> Any:
    """The whole state, placed as the abstract state says.

    Raises:
        ConfigError: paths, shapes or dtypes differ; lists the differences.
        StorageError: orbax cannot read it.
    """
    _refuse_differences(directory, abstract_state)
    restore_args = ocp.checkpoint_utils.construct_restore_args(abstract_state)
    return _read(directory, ocp.args.PyTreeRestore(item=abstract_state, restore_args=restore_args))


def restore_part(directory: Path, part: Any) -> Any:
    """The leaves of `part`, a subtree of `saved_tree`, as numpy arrays. Raises StorageError if any is missing."""
    restore_args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), part)
    loaded = _read(directory, ocp.args.PyTreeRestore(item=part, restore_args=restore_args, partial_restore=True))
    # Orbax returns the placeholder of a leaf that it did not find.
    found = {path for path, leaf in _paths(loaded) if isinstance(leaf, np.ndarray)}
    missing = [path for path, _ in _paths(part) if path not in found]
    if missing:
        raise StorageError(f"{directory} was not restored in full: {', '.join(missing[:_SHOWN_DIFFERENCES])}")
    return loaded


def saved_tree(directory: Path) -> Any:
    """The saved structure, from orbax's metadata: nested dicts and lists whose leaves have a shape and dtype."""
    try:
        return ocp.Checkpointer(_handler()).metadata(directory).item_metadata[ITEM].tree
    except Exception as error:
        raise storage_error(f"{directory} is whole but its metadata could not be read", error) from error


def _refuse_differences(directory: Path, abstract_state: Any) -> None:
    """Raises ConfigError before orbax would cast dtypes silently or report shapes with kilobytes of internals."""
    saved, wanted = _leaves(saved_tree(directory)), _leaves(abstract_state)
    differences = [
        f"{path}: saved {saved.get(path, 'nothing')}, the config asks for {wanted.get(path, 'nothing')}"
        for path in sorted(saved.keys() | wanted.keys())
        if saved.get(path) != wanted.get(path)
    ]
    if differences:
        shown = "; ".join(differences[:_SHOWN_DIFFERENCES])
        more = f"; and {len(differences) - _SHOWN_DIFFERENCES} more" if len(differences) > _SHOWN_DIFFERENCES else ""
        raise ConfigError(
            f"{directory} does not fit this config in {len(differences)} of {len(wanted)} arrays: {shown}{more}; "
            "resume with the config it was saved with, or start another workdir from it with checkpoint.init_from"
        )


def _leaves(tree: Any) -> dict[str, str]:
    return {path: f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}" for path, leaf in _paths(tree)}


def _paths(tree: Any) -> list[tuple[str, Any]]:
    """Leaves by path. Orbax's metadata has dicts and lists where the state may have named tuples and tuples."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def _read(directory: Path, arguments: Any) -> Any:
    try:
        return ocp.Checkpointer(_handler()).restore(directory, args=ocp.args.Composite(**{ITEM: arguments}))[ITEM]
    except Exception as error:
        raise storage_error(f"{directory} is whole but could not be read", error) from error


@functools.cache
def _silence() -> None:
    """Hides the output of orbax and TensorStore that repeats the exceptions we receive.

    Orbax logs progress for its developers, and errors as kilobytes of tracebacks. When one array cannot be written,
    TensorStore prints a traceback for each of the others, whose event loop orbax has closed by then, and asyncio one
    for each other array that could not be written either.
    """
    report = sys.unraisablehook

    def unraisablehook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            report(unraisable)

    sys.unraisablehook = unraisablehook
    logging.getLogger("asyncio").addFilter(lambda record: "exception was never retrieved" not in record.getMessage())
    logging.getLogger("absl").addFilter(
        lambda record: "/orbax/checkpoint/" not in record.pathname or record.levelno == logging.WARNING
    )


def _handler() -> ocp.CompositeCheckpointHandler:
    _silence()
    # Orbax would copy host arrays once more before writing them, and compress: float weights shrink by 8 % only, for
    # processor time that the input pipeline needs.
    registry = ocp.type_handlers.create_type_handler_registry(
        (np.ndarray, ocp.type_handlers.NumpyHandler(deepcopy_host_arrays=False)),
        (jax.Array, ocp.type_handlers.ArrayHandler()),
    )
    tree_handler = ocp.PyTreeCheckpointHandler(use_compression=False, type_handler_registry=registry)
    return ocp.CompositeCheckpointHandler(**{ITEM: tree_handler})


def storage_error(what: str, error: Exception) -> StorageError:
    """The error for the user. A StorageError is returned unchanged."""
    if isinstance(error, StorageError):
        return error
    return StorageError(f"{what}: {reason(error)}")


def reason(error: Exception) -> str:
    """The reason in one line, without TensorStore's internals."""
    code = re.search(r"os_error_code='(\d+)'", str(error))
    if code:
        return os.strerror(int(code[1]))
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return text.strip().splitlines()[0][:300]
