"""A folder of data made once, whole or not at all, however many processes ask for it at the same time."""

import contextlib
import fcntl
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from localmim_jax.errors import DataError


def made_once(data_dir: str, name: str, write: Callable[[Path], None]) -> Path:
    """The folder `name` within `data_dir` ("": TFDS's own default), made if it is not there.

    Args:
        data_dir: where datasets are kept.
        name: of the folder.
        write: fills a folder of another name, which gets its own when it is finished.

    Raises:
        DataError: the folder cannot be written.
    """
    from localmim_jax.data.tfds_source import default_dir

    folder = Path(default_dir(data_dir)) / name
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.parent / f".{folder.name}.lock"):
            if not folder.is_dir():
                unfinished = folder.with_name(f".{folder.name}.unfinished")
                shutil.rmtree(unfinished, ignore_errors=True)
                write(unfinished)
                unfinished.rename(folder)
    except OSError as error:
        raise DataError(f"{folder} cannot be written ({error.strerror}): choose another data.data_dir") from error
    return folder


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
