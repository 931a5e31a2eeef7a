"""The directory that prepared datasets are kept in, and the locks with which each is prepared once."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from localmim_jax.errors import DataError


def default_dir(data_dir: str) -> str:
    """The directory meant: TFDS's own default for "", "~" resolved, cloud paths as they are."""
    if not data_dir:
        import tensorflow_datasets as tfds  # takes seconds

        return str(tfds.core.constants.DATA_DIR)
    return data_dir if "://" in data_dir else str(Path(data_dir).expanduser())


@contextlib.contextmanager
def locked(data_dir: str, name: str) -> Iterator[None]:
    """Holds the lock of one dataset: one process prepares it, and the others wait.

    Cloud storage has no locks: there, prepare a dataset once before many hosts use it.

    Raises:
        DataError: the directory cannot be written.
    """
    with contextlib.ExitStack() as held:
        if "://" not in data_dir:
            try:
                Path(data_dir).mkdir(parents=True, exist_ok=True)
                file = held.enter_context(Path(data_dir, f".{name}.lock").open("a"))
            except OSError as error:
                raise DataError(
                    f"{data_dir} cannot be written ({error.strerror}): choose another data.data_dir"
                ) from error
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
