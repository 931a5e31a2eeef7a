"""What the commands that draw on images of one's own share: reading them, naming and writing their pictures."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from localmim_jax.data.decode import DecodeError, ImageLike, decode, read_file
from localmim_jax.errors import DataError, StorageError


def free_names(images: Sequence[str], directory: Path) -> list[Path]:
    """A PNG in the directory for every image: its own name, with a number behind it where two have the same.

    Raises StorageError where the directory is a file, which is better said before anything is computed.
    """
    if directory.is_file():
        raise StorageError(f"{directory} cannot be written: it is a file; give another --output")
    paths: dict[Path, None] = {}  # in order
    for image in images:
        stem = Path(image).stem
        numbered = (f"{stem}_{number}" if number > 1 else stem for number in itertools.count(1))
        paths[next(path for name in numbered if (path := directory / f"{name}.png") not in paths)] = None
    return list(paths)


def read_bytes(path: Path) -> bytes:
    """What is in an image file. Raises DataError with its name."""
    if path.is_dir():
        raise DataError(f"{path} is a folder: name the images in it, for example {path}/*.jpg")
    try:
        return read_file(path)
    except DecodeError as error:
        raise DataError(f"{path}: {error}") from error


def read(image: str) -> ImageLike:
    """An image file, upright, RGB. Raises DataError with its name."""
    path = Path(image).expanduser()
    try:
        return decode(read_bytes(path), 3)
    except DecodeError as error:
        raise DataError(f"{path}: {error}") from error


def save(picture: np.ndarray, path: Path) -> None:
    """Writes uint8 [h, w, 3], folders above it made. Raises StorageError where it cannot."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}; give another --output") from error
