"""Drawings of label maps: the colors of the classes over the image, with a legend. numpy and Pillow only."""

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from localmim_jax.evals import drawing

STRENGTH = 0.6  # opacity of a class's color over the image
_TINTS = ((0.75, 0.95), (0.9, 0.6), (0.45, 1.0))  # (saturation, value), in turn
_NO_CLASS = (0, 0, 0)
_LEGEND = 12  # number of classes in a legend, the largest


def colors(num_classes: int) -> np.ndarray:
    """A color for each class, uint8 [num_classes, 3]; neighbors differ much, and none is black."""
    found = []
    for label in range(num_classes):
        red, green, blue = colorsys.hsv_to_rgb(label * 0.618034 % 1, *_TINTS[label % len(_TINTS)])
        found.append((round(255 * red), round(255 * green), round(255 * blue)))
    return np.array(found, np.uint8).reshape(-1, 3)


def paint(image: np.ndarray, labels: np.ndarray, num_classes: int, strength: float = STRENGTH) -> np.ndarray:
    """The image under the colors of its labels.

    Args:
        image: uint8 [h, w, 3].
        labels: integers [h, w]; labels outside 0 to num_classes - 1 are drawn black.
        num_classes: number of classes.
        strength: opacity of the colors, 0 to 1.

    Returns:
        uint8 [h, w, 3].
    """
    table = np.concatenate([colors(num_classes), np.array([_NO_CLASS], np.uint8)])
    known = (labels >= 0) & (labels < num_classes)
    painted = table[np.where(known, labels, num_classes).astype(np.int64)]
    return np.rint((1 - strength) * image + strength * painted).astype(np.uint8)


def with_legend(image: np.ndarray, labels: np.ndarray, class_names: Sequence[str], long_side: int = 0) -> np.ndarray:
    """The image under the colors of its labels, above a legend of the classes by area, the largest first.

    `long_side` is the long side of the image in pixels, without its legend; 0 keeps the size.
    """
    painted = paint(image, labels, len(class_names))
    painted = _at(painted, long_side, Image.Resampling.BICUBIC) if long_side else painted
    counts = np.bincount(labels.ravel().astype(np.int64), minlength=len(class_names))[: len(class_names)]
    shown = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
    return np.concatenate([painted, legend(shown, counts / max(1, labels.size), class_names, painted.shape[1])])


def legend(shown: Sequence[int], fractions: np.ndarray, class_names: Sequence[str], width: int) -> np.ndarray:
    """Colors and names of classes in lines of at most `width` pixels: uint8 [h, width, 3].

    Args:
        shown: classes to name; the first ones are named.
        fractions: fraction of the area of each class.
        class_names: name of each class.
        width: width of the legend in pixels.
    """
    font = ImageFont.load_default(12)
    line, box, gap = 18, 12, 6
    entries = [(i, f"{class_names[i].split(',')[0]} {100 * fractions[i]:.0f} %") for i in shown[:_LEGEND]]
    places, left, top = [], gap, gap
    for i, text in entries:
        length = box + 4 + round(font.getlength(text)) + 2 * gap
        if left > gap and left + length > width:
            left, top = gap, top + line
        places.append((i, text, left, top))
        left += length
    canvas = Image.new("RGB", (width, top + line + gap), (255, 255, 255))
    pen, table = ImageDraw.Draw(canvas), colors(len(class_names))
    for i, text, x, y in places:
        pen.rectangle((x, y, x + box, y + box), fill=tuple(map(int, table[i])), outline=(90, 90, 90))
        pen.text((x + box + 4, y - 1), text, (32, 32, 32), font=font)
    return np.asarray(canvas)


def comparison(
    rows: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], class_names: Sequence[str], long_side: int
) -> np.ndarray:
    """Images beside ground truth and prediction, one per row, above a legend: uint8 [h, w, 3].

    Args:
        rows: (image uint8 [h, w, 3], ground truth and prediction, integers [h', w']), of any sizes.
        class_names: name of each class.
        long_side: long side of every image, in pixels.
    """
    pictures, counts = [], np.zeros(len(class_names), np.int64)
    for image, gt, predicted in rows:
        image = _at(image, long_side, Image.Resampling.BICUBIC)
        row = [image]
        for labels in (gt, predicted):
            large = np.asarray(
                Image.fromarray(labels.astype(np.uint8)).resize(image.shape[1::-1], Image.Resampling.NEAREST)
            )
            row.append(paint(image, large, len(class_names)))
        counts += sum(np.bincount(x.ravel(), minlength=len(class_names))[: len(class_names)] for x in (gt, predicted))
        pictures.append(row)
    panel = tuple(max(row[0].shape[axis] for row in pictures) for axis in (0, 1))
    framed = [[_framed(picture, panel) for picture in row] for row in pictures]
    sheet = drawing.labeled_grid(framed, ("image", "truth", "prediction"), panel)
    shown = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
    return np.concatenate([sheet, legend(shown, counts / max(1, counts.sum()), class_names, sheet.shape[1])])


def _at(picture: np.ndarray, long_side: int, method: Image.Resampling) -> np.ndarray:
    scale = long_side / max(picture.shape[:2])
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    return np.asarray(Image.fromarray(picture).resize(size, method))


def _framed(picture: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """The picture in the middle of a white panel of (h, w) pixels."""
    canvas = np.full((*size, 3), 255, np.uint8)
    top, left = ((side - length) // 2 for side, length in zip(size, picture.shape[:2], strict=True))
    canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return canvas
