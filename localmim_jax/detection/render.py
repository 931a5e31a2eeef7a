"""Drawings of detections: boxes, masks and labels on the image. numpy and Pillow only."""

import colorsys
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from localmim_jax.detection.paste import paste

MIN_SCORE = 0.5  # of a detection that is drawn
LEGIBLE = 640  # long side in pixels at which names and outlines are legible
_GAP = 6
_STRENGTH = 0.45  # opacity of a mask's color over the image


def draw(
    image: np.ndarray,
    found: Mapping[str, np.ndarray],
    class_names: Sequence[str],
    long_side: int = 0,
    min_score: float = MIN_SCORE,
) -> np.ndarray:
    """The image with its detections.

    Args:
        image: uint8 [h, w, 3].
        found: "boxes" [n, 4] in pixels of the image, "scores", "labels" [n], "masks" [n, s, s] over each box.
        class_names: name of each label.
        long_side: long side of the drawing in pixels; 0 keeps the size of the image.
        min_score: minimum score of a detection that is drawn.

    Returns:
        uint8 [h, w, 3].
    """
    height, width = image.shape[:2]
    scale = long_side / max(height, width) if long_side else 1.0
    size = round(height * scale), round(width * scale)
    canvas = np.array(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))
    shown = [i for i in np.argsort(-np.asarray(found["scores"])) if found["scores"][i] >= min_score]
    boxes = np.asarray(found["boxes"], np.float64) * scale
    for i in reversed(shown):  # the highest score on top
        mask = paste(found["masks"][i], boxes[i], size) > 0
        canvas[mask] = (1 - _STRENGTH) * canvas[mask] + _STRENGTH * np.array(color(int(found["labels"][i])))
    picture = Image.fromarray(canvas)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(max(10, max(size) // 50))
    for i in reversed(shown):
        label, ink = int(found["labels"][i]), color(int(found["labels"][i]))
        pen.rectangle(tuple(boxes[i]), outline=ink, width=max(1, max(size) // 300))
        text = f"{class_names[label]} {found['scores'][i]:.2f}"
        _, _, right, bottom = pen.textbbox((2, 1), text, font=font)
        left = min(max(0.0, float(boxes[i][0])), size[1] - right)
        top = min(max(0.0, float(boxes[i][1])), size[0] - bottom)
        pen.rectangle(pen.textbbox((left + 2, top + 1), text, font=font), fill=ink)
        pen.text((left + 2, top + 1), text, (0, 0, 0), font=font)
    return np.asarray(picture)


def color(label: int) -> tuple[int, int, int]:
    """A light color for each label; neighbors differ much."""
    red, green, blue = colorsys.hsv_to_rgb(label * 0.618034 % 1, 0.65, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def grid(pictures: Sequence[np.ndarray], columns: int = 4) -> np.ndarray:
    """Pictures of any sizes side by side on white: uint8 [h, w, 3]."""
    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    canvas = np.full((rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        top, left = _GAP + i // columns * (height + _GAP), _GAP + i % columns * (width + _GAP)
        canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return canvas
