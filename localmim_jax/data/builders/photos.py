"""`photos`: tiles of the color photographs inside scikit-image, scikit-learn and matplotlib."""

import importlib.util
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from PIL import Image

from localmim_jax.errors import DataError

TILE = 160  # pixels, square
_GRID = {"train": 13, "test": 8}  # tiles per side of a photograph

_SKIMAGE = ("skimage", "data")
_SKLEARN = ("sklearn", "datasets/images")
_MATPLOTLIB = ("matplotlib", "mpl-data/sample_data")
_FILES = {
    "train": {
        "astronaut": (*_SKIMAGE, "astronaut.png"),
        "chelsea": (*_SKIMAGE, "chelsea.png"),
        "china": (*_SKLEARN, "china.jpg"),
        "coffee": (*_SKIMAGE, "coffee.png"),
        "hubble_deep_field": (*_SKIMAGE, "hubble_deep_field.jpg"),
        "immunohistochemistry": (*_SKIMAGE, "ihc.png"),
        "retina": (*_SKIMAGE, "retina.jpg"),
        "rocket": (*_SKIMAGE, "rocket.jpg"),
    },
    "test": {
        "flower": (*_SKLEARN, "flower.jpg"),
        "grace_hopper": (*_MATPLOTLIB, "grace_hopper.jpg"),
        "motorcycle_left": (*_SKIMAGE, "motorcycle_left.png"),
        "motorcycle_right": (*_SKIMAGE, "motorcycle_right.png"),
    },
}
_BOXES = {"retina": (206, 206, 1205, 1205)}  # left, top, right, bottom: the square inside the eye's black surround


class LocalmimPhotos(tfds.core.GeneratorBasedBuilder):
    """1352 training tiles of eight photographs, 256 test tiles of four others; the label is the photograph.

    No photograph is in both splits, so the test split shows unseen pictures and its labels do not occur in training.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(TILE, TILE, 3), encoding_format="jpeg"),
                    "label": tfds.features.ClassLabel(names=sorted(_FILES["train"]) + sorted(_FILES["test"])),
                    "file_name": tfds.features.Text(),
                }
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager
        return {split: self._generate_examples(split) for split in _FILES}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for name, photograph in photographs(split).items():
            for row, column, tile in _tiles(photograph, _GRID[split]):
                file = f"{name}_{row:02d}_{column:02d}.jpg"
                data = io.BytesIO()
                tile.save(data, "JPEG", quality=95)
                yield file, {"image": data.getvalue(), "label": name, "file_name": file}


def photographs(split: str) -> dict[str, Image.Image]:
    """The whole photographs of a split in RGB, by name.

    Raises:
        DataError: a package that holds them is not installed.
    """
    images = {}
    for name, (package, folder, file) in _FILES[split].items():
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise DataError(f"photos are read from {package}, which is not installed: pip install 'localmim-jax[demo]'")
        image = Image.open(Path(spec.origin).parent / folder / file).convert("RGB")
        images[name] = image.crop(_BOXES[name]) if name in _BOXES else image
    return images


def _tiles(image: Image.Image, grid: int) -> Iterator[tuple[int, int, Image.Image]]:
    """(row, column, tile) on an even grid that reaches every edge; neighbors overlap."""
    for row in range(grid):
        for column in range(grid):
            left = round(column * (image.width - TILE) / (grid - 1))
            top = round(row * (image.height - TILE) / (grid - 1))
            yield row, column, image.crop((left, top, left + TILE, top + TILE))
