"""Images with a class for every pixel: folders in ADE20K's layout, TFDS datasets, and a fake one.

A folder has `images/<split>/` and `annotations/<split>/` with a mask NAME.png for every image NAME, one number a pixel,
and a list of the classes: `classes.txt`, one name a line, or ADE20K's own `objectInfo150.txt`. With `zero_ignored`,
ADE20K's way, 0 in a mask is "no class" and i stands for the i-th class; without, 0 is the first class. Either way
255 is "no class". `mask_values` gives the value of each class where they are numbered otherwise.
"""

import os
from pathlib import Path

import numpy as np

from localmim_jax.data.decode import SUFFIXES, DecodeError, image_size, read_file
from localmim_jax.data.fingerprint import digest, of_files
from localmim_jax.data.names import composed, some
from localmim_jax.data.source import announced
from localmim_jax.data.splits import find_split
from localmim_jax.data.walk import find_files, folders_of
from localmim_jax.errors import DataError
from localmim_jax.segmentation.numbering import Numbering
from localmim_jax.segmentation.source import MaskSource

CLASS_LISTS = ("classes.txt", "objectInfo150.txt")
_MASK = ".png"


class MaskFolder(MaskSource):
    """A split of a folder, see the top of this file, and `data.splits` for the names of splits.

    Args:
        root: the folder.
        split: name of a folder in `images/` and in `annotations/`.
        zero_ignored, mask_values: see `Numbering`.

    Raises:
        DataError: a folder, the list of classes or a mask is missing, or there is no image.
        ConfigError: `mask_values` are not one for each class.
    """

    def __init__(self, root: str, split: str, zero_ignored: bool = True, mask_values: tuple[int, ...] | None = None):
        self.name = f"masks:{root}[{split}]"
        self._root = Path(root).expanduser()
        self.class_names = _class_names(self._root)
        self.num_classes = len(self.class_names)
        self.numbering = Numbering(self.num_classes, zero_ignored, mask_values)
        self._images, self._masks = (self._folder(kind, split) for kind in ("images", "annotations"))
        found = find_files(self._images)
        self._files, self.notes = found.files, tuple(found.notes())
        if not self._files:
            raise DataError(
                f"{self._images} holds no images: put {', '.join(SUFFIXES)} files there, or change the split"
            )
        # By name without suffix, in one form of Unicode: archives of different systems hold images and masks.
        masks = {composed(name[: -len(_MASK)]): name for name in find_files(self._masks, (_MASK,)).files}
        stems = [composed(os.path.splitext(name)[0]) for name in self._files]
        missing = [name for name, stem in zip(self._files, stems, strict=True) if stem not in masks]
        if missing:
            raise DataError(
                f"{len(missing)} of the {len(self._files)} images in {self._images} have no mask in {self._masks}: "
                f"{some(missing)}; a mask has its image's name and ends in .png"
            )
        self._mask_files = tuple(masks[stem] for stem in stems)

    def __len__(self) -> int:
        return len(self._files)

    def read(self, index: int) -> tuple[bytes, bytes]:
        image = read_file(self._images / self._files[index])
        try:
            return image, read_file(self._mask(index))
        except DecodeError as error:
            raise DecodeError(f"its mask: {error}") from error

    def size_of(self, index: int) -> tuple[int, int]:
        try:
            return image_size(read_file(self._images / self._files[index]))
        except DecodeError as error:
            raise DataError(f"{self.name_of(index)}: {error}; repair or remove it") from error

    def fingerprint(self) -> str:
        return digest(self.class_names, of_files(self._images, self._files), of_files(self._masks, self._mask_files))

    def key_of(self, index: int) -> str:
        return self._files[index]

    def name_of(self, index: int) -> str:
        return str(self._images / self._files[index])

    def _mask(self, index: int) -> Path:
        return self._masks / self._mask_files[index]

    def _folder(self, kind: str, split: str) -> Path:
        above = self._root / kind
        there = folders_of(above)
        chosen = find_split(there, split)
        if len(chosen) == 1:
            return above / chosen[0]
        found = f"there is {some(there, 8)}" if there else f"{above} is empty or missing"
        raise DataError(f"{self.name}: no folder {above / split}; {found}; see docs/segmentation.md for the layout")


class FakeMasks(MaskSource):
    """Noise with rectangles of classes, landscape and portrait: measures everything but the reading of images."""

    def __init__(self, num_examples: int, num_classes: int, image_size: tuple[int, int], split: str):
        self.name = f"fake[{split}]"
        self.num_classes = num_classes
        self.numbering = Numbering(num_classes, zero_ignored=True)
        self.class_names = tuple(f"fake {i}" for i in range(num_classes))
        self._num_examples, self._image_size = num_examples, image_size

    def __len__(self) -> int:
        return self._num_examples

    def size_of(self, index: int) -> tuple[int, int]:
        h, w = self._image_size
        return (h, w + w // 3) if index % 3 else (h + h // 3, w)

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rng, size = np.random.default_rng((3, index)), self.size_of(index)
        mask = np.repeat(
            np.repeat(rng.integers(0, self.num_classes + 1, (4, 4)), -(-size[0] // 4), 0), -(-size[1] // 4), 1
        )
        return rng.integers(0, 256, (*size, 3), np.uint8), mask[: size[0], : size[1]]

    def key_of(self, index: int) -> str:
        return str(index)


def open_masks(
    name: str,
    split: str,
    data_dir: str = "",
    *,
    zero_ignored: bool = True,
    mask_values: tuple[int, ...] | None = None,
    num_classes: int = 150,
    image_size: tuple[int, int] = (512, 512),
    fake_examples: int = 20210,
) -> MaskSource:
    """The dataset that a config names: "masks:<folder>", "tfds:<name>", "regions" (made on first use) or "fake".

    Args:
        name, split, data_dir: as in the config.
        zero_ignored, mask_values: see `Numbering`.
        num_classes: of "fake", and of a TFDS dataset that does not name its classes.
        image_size: of "fake".
        fake_examples: size of "fake".

    Raises:
        DataError: it is missing, empty, or not laid out as it should be.
        ConfigError: `mask_values` are not one for each class.
    """
    kind, _, rest = name.partition(":")
    if kind == "masks" and rest:
        return announced(MaskFolder(rest, split, zero_ignored, mask_values))
    if kind == "tfds" and rest:
        from localmim_jax.segmentation.tfds_masks import open_tfds_masks  # imports TFDS

        return open_tfds_masks(name, split, data_dir, zero_ignored, num_classes, mask_values)
    if name == "regions":
        from localmim_jax.segmentation import regions  # imports TFDS

        return MaskFolder(str(regions.prepare(data_dir)), split)
    if name == "fake":
        return FakeMasks(fake_examples, num_classes, image_size, split)
    raise DataError(f'data.name is {name!r}; segmentation reads "masks:<folder>", "tfds:<name>", "regions" or "fake"')


def _class_names(root: Path) -> tuple[str, ...]:
    for name in CLASS_LISTS:
        try:
            lines = (root / name).read_text(encoding="utf-8-sig").rstrip().split("\n")
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{root / name} cannot be read ({error}): it must list the classes as text") from error
        if name == "objectInfo150.txt":  # a table whose last column has the names, under a heading
            lines = [line.split("\t")[-1] for line in lines[1:]]
        if "" in (stripped := tuple(line.strip() for line in lines)) and len(stripped) > 1:
            raise DataError(f"{root / name} has an empty line {stripped.index('') + 1}: classes are numbered by line")
        if any(stripped):
            return stripped
    if not root.is_dir():
        raise DataError(f"masks:{root} is not a folder: give the one that holds images/ and annotations/")
    raise DataError(
        f"{root} has no list of classes: write classes.txt, one name per line, in the order of the masks' values"
    )
