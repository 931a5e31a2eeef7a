"""Datasets that are drawn on first use: a folder that is complete or not there, whatever number of processes ask."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from localmim_jax.data.storage import default_dir, locked
from localmim_jax.errors import DataError


def prepare_generated(
    data_dir: str, name: str, num_images: Mapping[str, int], write_split: Callable[[Path, str, int], None]
) -> Path:
    """The folder of a generated dataset within `data_dir`, made if it is not there.

    Args:
        data_dir: where datasets are kept; "" is TFDS's own default.
        name: of the dataset; the folder's name has it and the numbers of images.
        num_images: of each split.
        write_split: (folder, split, number of images), writes a split into a folder that may not be there yet.

    Raises:
        DataError: the folder cannot be written.
    """
    above = default_dir(data_dir)
    folder = Path(above) / "_".join(("localmim", name, *map(str, num_images.values())))
    with locked(above, folder.name):
        if folder.is_dir():
            return folder
        unfinished = folder.with_name(f".{folder.name}.unfinished")
        try:
            shutil.rmtree(unfinished, ignore_errors=True)
            for split, count in num_images.items():
                write_split(unfinished, split, count)
            unfinished.rename(folder)
        except OSError as error:
            raise DataError(f"{folder} cannot be written ({error.strerror}): choose another data.data_dir") from error
    return folder
