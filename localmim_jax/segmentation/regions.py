"""`regions`: a small dataset in ADE20K's layout: crops of real photographs, with masks from their own colors.

Made on first use from the photographs of `builders.photos`, always the same. A pixel's class is the tone of its
neighborhood, and whether that is smooth or textured; where either is a close call, the mask has 0, unlabeled. Tone
alone can be read off a pixel, texture only off its surroundings.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from localmim_jax.data.builders.generated import prepare_generated
from localmim_jax.data.builders.photos import photographs

CLASSES = ("dark", "dark texture", "pale", "pale texture", "warm", "warm texture", "cool")
IMAGES = {"training": 480, "validation": 80}
_PHOTOGRAPHS = {"training": "train", "validation": "test"}  # no photograph is in both splits
_SIDES = (72, 136)  # of a crop in pixels, smallest and largest
_LONG_SIDE = 640  # to which larger photographs are shrunk first

_DARK, _PALE, _TEXTURE = 64, 56, 40  # thresholds of HSV's value and saturation, and of eight times the local detail
_UNSURE = 4  # nobody knows on which side of a threshold so near a value is
_WARM = (70, 300)  # hue in degrees: below the first or from the second


def prepare(data_dir: str, images: dict[str, int] | None = None) -> Path:
    """The dataset's folder within `data_dir` ("": TFDS's own default), made if it is not there.

    Args:
        data_dir: where datasets are kept.
        images: how many of each split; None: `IMAGES`.

    Raises:
        DataError: the folder cannot be written, or a package with photographs is missing.
    """
    return prepare_generated(data_dir, "regions", images or IMAGES, _write_split)


def regions(photograph: Image.Image) -> np.ndarray:
    """The mask of an RGB photograph: uint8 [h, w], 0 where unsure and i + 1 for class i."""
    soft = photograph.filter(ImageFilter.GaussianBlur(3))
    hue, saturation, value = np.moveaxis(np.asarray(soft.convert("HSV")).astype(int), -1, 0)
    hue = hue * 360 // 256
    detail = np.abs(np.asarray(photograph.convert("L")).astype(int) - np.asarray(soft.convert("L")))
    enlarged = Image.fromarray(np.minimum(8 * detail, 255).astype(np.uint8))
    texture = np.asarray(enlarged.filter(ImageFilter.GaussianBlur(6))).astype(int)

    warm = (hue < _WARM[0]) | (hue >= _WARM[1])
    tone = np.select([value < _DARK, saturation < _PALE, warm], [0, 2, 4], 6)
    mask = 1 + tone + ((texture >= _TEXTURE) & (tone < 6))
    unsure = np.abs(value - _DARK) < _UNSURE
    unsure |= (np.abs(saturation - _PALE) < _UNSURE) & (tone > 0)
    unsure |= (np.abs(texture - _TEXTURE) < _UNSURE) & (tone < 6)
    raw = Image.fromarray(np.where(unsure, 0, mask).astype(np.uint8))
    return np.asarray(raw.filter(ImageFilter.ModeFilter(5)))


def _write_split(folder: Path, split: str, count: int) -> None:
    images, annotations = (folder / kind / split for kind in ("images", "annotations"))
    images.mkdir(parents=True)
    annotations.mkdir(parents=True)
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    sheets = []
    for photograph in photographs(_PHOTOGRAPHS[split]).values():
        shrink = min(1.0, _LONG_SIDE / max(photograph.size))
        size = round(photograph.width * shrink), round(photograph.height * shrink)
        sheet = photograph.resize(size, Image.Resampling.BICUBIC)
        sheets.append((sheet, Image.fromarray(regions(sheet))))
    for index in range(count):
        rng = np.random.default_rng((list(IMAGES).index(split), index))
        sheet, mask = sheets[index % len(sheets)]
        width, height = rng.integers(*_SIDES, 2, endpoint=True)
        left, top = rng.integers(sheet.width - width + 1), rng.integers(sheet.height - height + 1)
        box = int(left), int(top), int(left + width), int(top + height)
        sheet.crop(box).save(images / f"{index:05d}.jpg", quality=95)
        mask.crop(box).save(annotations / f"{index:05d}.png")
