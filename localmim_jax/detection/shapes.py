"""`shapes`: a small dataset in COCO's format, with exact masks: flat shapes on crops of real photographs.

Made on first use from the photographs of `builders.photos`, always the same. Its five classes differ in outline only;
colors, sizes, angles and places are drawn anew. Shapes may cover one another, so some masks are what is left visible.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from localmim_jax.data.builders.generated import prepare_generated
from localmim_jax.data.builders.photos import photographs

CLASSES = ("disc", "square", "triangle", "star", "ring")
CATEGORY_IDS = (1, 2, 3, 5, 8)  # with gaps, as COCO's own
IMAGES = {"train": 1200, "val": 150}
_PHOTOGRAPHS = {"train": "train", "val": "test"}  # no photograph is in both splits
_SIZE = (96, 128)
_VISIBLE = 0.5  # a shape is an object as long as this fraction of it is visible


def prepare(data_dir: str, images: dict[str, int] | None = None) -> Path:
    """The dataset's folder within `data_dir` ("": TFDS's own default), made if it is not there.

    Args:
        data_dir: where datasets are kept.
        images: how many of each split; None: `IMAGES`.

    Raises:
        DataError: the folder cannot be written, or a package with photographs is missing.
    """
    return prepare_generated(data_dir, "shapes", images or IMAGES, _write_split)


def _write_split(folder: Path, split: str, count: int) -> None:
    (folder / split).mkdir(parents=True)
    (folder / "annotations").mkdir(exist_ok=True)
    sheets = [np.asarray(photograph) for photograph in photographs(_PHOTOGRAPHS[split]).values()]
    categories = [{"id": number, "name": name} for number, name in zip(CATEGORY_IDS, CLASSES, strict=True)]
    dataset: dict[str, Any] = {"info": {}, "images": [], "annotations": [], "categories": categories}
    for index in range(count):
        rng = np.random.default_rng((list(IMAGES).index(split), index))
        image, objects = draw(rng, _background(sheets[index % len(sheets)], rng))
        name = f"{index:06d}.jpg"
        Image.fromarray(image).save(folder / split / name, quality=95)
        height, width = image.shape[:2]
        dataset["images"].append({"id": index + 1, "file_name": name, "height": height, "width": width})
        for found in objects:
            dataset["annotations"].append(found | {"id": len(dataset["annotations"]) + 1, "image_id": index + 1})
    (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(dataset))


def _background(sheet: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A landscape or portrait crop of a photograph, shrunk by 1 to 2 where the photograph is large enough."""
    height, width = _SIZE if rng.random() < 2 / 3 else _SIZE[::-1]
    scale = min(rng.uniform(1, 2), sheet.shape[0] / height, sheet.shape[1] / width)
    rows, columns = int(height * scale), int(width * scale)
    top, left = rng.integers(sheet.shape[0] - rows + 1), rng.integers(sheet.shape[1] - columns + 1)
    crop = Image.fromarray(sheet[top : top + rows, left : left + columns])
    return np.array(crop.resize((width, height), Image.Resampling.BICUBIC))


def draw(rng: np.random.Generator, image: np.ndarray) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Shapes on a picture, in place, and what COCO's JSON says of each: category, box, area, mask.

    A shape that nothing covers and that has no hole is given as a polygon, every other one as run lengths. Either way
    its mask is exactly the pixels that were painted.
    """
    from pycocotools import mask as coco_mask

    height, width = image.shape[:2]
    drawn: list[dict[str, Any]] = []
    for _ in range(rng.choice(6, p=(0.05, 0.25, 0.3, 0.2, 0.12, 0.08))):
        label, radius = int(rng.integers(len(CLASSES))), rng.uniform(10, 26)
        center = rng.uniform(radius / 2, (width - radius / 2, height - radius / 2))
        polygons = _outline(CLASSES[label], center, radius, rng.uniform(0, 2 * math.pi))
        masks = [coco_mask.decode(coco_mask.frPyObjects([polygon], height, width))[..., 0] > 0 for polygon in polygons]
        mask = masks[0] & ~masks[1] if len(masks) > 1 else masks[0]
        image[mask] = _paint(rng, height, width)[mask]
        for other in drawn:
            other["visible"] = other["visible"] & ~mask
        drawn.append({"label": label, "polygons": polygons, "mask": mask, "visible": mask})
    objects = []
    for shape in drawn:
        visible = shape["visible"]
        if visible.sum() < max(20, _VISIBLE * shape["mask"].sum()):
            continue
        whole = len(shape["polygons"]) == 1 and np.array_equal(visible, shape["mask"])
        run_lengths = coco_mask.encode(np.asfortranarray(visible.astype(np.uint8)))
        text = {"size": [height, width], "counts": run_lengths["counts"].decode()}
        objects.append(
            {
                "category_id": CATEGORY_IDS[shape["label"]],
                "bbox": coco_mask.toBbox(run_lengths).tolist(),
                "area": int(visible.sum()),
                "iscrowd": 0,
                "segmentation": shape["polygons"] if whole else text,
            }
        )
    return image, objects


def _outline(kind: str, center: np.ndarray, radius: float, angle: float) -> list[list[float]]:
    """One polygon, or an outer and an inner one; x and y in turn, in pixels."""

    def polygon(corners: int, radii: tuple[float, ...]) -> list[float]:
        turn = angle + 2 * np.pi * np.arange(corners) / corners
        reach = np.resize(radii, corners)
        points = center + np.stack([np.cos(turn), np.sin(turn)], axis=-1) * reach[:, None]
        return np.round(points, 2).ravel().tolist()

    if kind == "ring":
        return [polygon(40, (radius,)), polygon(40, (0.55 * radius,))]
    corners, radii = {
        "disc": (40, (radius,)),
        "square": (4, (1.15 * radius,)),
        "triangle": (3, (1.25 * radius,)),
        "star": (10, (1.25 * radius, 0.5 * radius)),
    }[kind]
    return [polygon(corners, radii)]


def _paint(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A color, uneven in broad patches, so that a shape is told by its outline and not by being flat."""
    color = rng.integers(0, 256, 3)
    patches = Image.fromarray(rng.integers(0, 256, (height, width), np.uint8)).filter(ImageFilter.GaussianBlur(3))
    uneven = (np.asarray(patches, np.float32) - 128)[..., None] * rng.uniform(0, 2)
    return np.clip(color + uneven, 0, 255).astype(np.uint8)
