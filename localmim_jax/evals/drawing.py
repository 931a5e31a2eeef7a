"""Pictures of what is reconstructed: HOG as oriented glyphs, pixel patches as an image, masked inputs, labeled grids.

numpy and Pillow only. Pictures are uint8 [h, w, 3], brightness 0..255.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_BACKGROUND, _INK = (255, 255, 255), (32, 32, 32)
_MASKED = 128  # gray of a masked patch
GAP = 6  # pixels between panels


def hog_picture(descriptors: np.ndarray, bins: int, cell: int) -> np.ndarray:
    """Histograms of oriented gradients as glyphs: in each cell, one stroke per bin along the edges that it counts.

    A stroke is as bright as the square root of its bin's value, so that weak predictions are visible. Three color
    channels are drawn in red, green and blue, so that edges on which they agree are white; any other number of channels
    is averaged and drawn in white.

    Args:
        descriptors: [g_h, g_w, channels * bins], channel-major, values 0..1 (others are clipped; NaN counts as 0).
            Bin i holds gradients (gx, gy) with atan2(gx, gy) / pi * bins in [i, i + 1), as in `targets`.
        bins: orientation bins over half a turn.
        cell: side of a drawn cell in pixels; 6 at least for legible strokes.

    Returns:
        uint8 [g_h * cell, g_w * cell, 3].
    """
    gh, gw, _ = descriptors.shape
    weights = np.sqrt(np.clip(np.nan_to_num(np.asarray(descriptors, np.float32)), 0, 1)).reshape(gh * gw, -1, bins)
    if weights.shape[1] != 3:
        weights = weights.mean(axis=1, keepdims=True)
    strokes = _strokes(bins, cell).reshape(bins, cell * cell)
    drawn = np.zeros((gh * gw, weights.shape[1], cell * cell), np.float32)
    for i in range(bins):  # the brightest stroke wins: a sum would bleach every cell's center
        np.maximum(drawn, weights[:, :, i, None] * strokes[i], out=drawn)
    picture = drawn.reshape(gh, gw, -1, cell, cell).transpose(0, 3, 1, 4, 2).reshape(gh * cell, gw * cell, -1)
    return np.broadcast_to(np.rint(picture * 255), (*picture.shape[:2], 3)).astype(np.uint8)


def _strokes(bins: int, size: int) -> np.ndarray:
    """One antialiased line a bin through the middle of a [size, size] square: float32 [bins, size, size] in 0..1."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    angle = (np.arange(bins)[:, None, None] + 0.5) * np.pi / bins
    # atan2(gx, gy) = angle puts the gradient along (sin, cos) in (x, y), so the edge runs along (cos, -sin).
    across = np.abs(x * np.sin(angle) + y * np.cos(angle))
    along = np.abs(x * np.cos(angle) - y * np.sin(angle))
    width, length = max(1.0, 0.07 * size), 0.92 * size
    return (np.clip(width / 2 + 0.5 - across, 0, 1) * np.clip(length / 2 + 0.5 - along, 0, 1)).astype(np.float32)


def pixel_picture(patches: np.ndarray, channels: int) -> np.ndarray:
    """Normalized pixel patches put back into a picture, as they are: each patch's mean is mid-gray.

    A patch's own mean and contrast are not put back. No model predicts them, and with them even an empty prediction
    would look like a good, coarse copy of the input.

    Args:
        patches: [g_h, g_w, patch * patch * channels], pixels in row, column, channel order, in standard deviations of
            the patch; 3 above its mean is drawn full, 3 below 0, NaN as the mean.
        channels: of the image.

    Returns:
        uint8 [g_h * patch, g_w * patch, 3].
    """
    gh, gw, length = patches.shape
    patch = round((length / channels) ** 0.5)
    values = 0.5 + np.nan_to_num(np.asarray(patches, np.float32)) / 6
    image = values.reshape(gh, gw, patch, patch, channels).transpose(0, 2, 1, 3, 4)
    image = image.reshape(gh * patch, gw * patch, channels)
    return rgb(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8))


def rgb(image: np.ndarray) -> np.ndarray:
    """uint8 [h, w, c] as [h, w, 3]: three channels as they are, any other number averaged to gray."""
    if image.shape[-1] == 3:
        return image
    gray = np.rint(image.mean(axis=-1, keepdims=True)).astype(np.uint8)
    return np.repeat(gray, 3, axis=-1)


def masked_picture(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The picture with the masked patches gray. `mask` is [g_h, g_w], 1 where masked; g_h and g_w divide h and w."""
    return np.where(enlarge(mask, picture.shape[:2])[..., None] > 0, np.uint8(_MASKED), picture)


def show_visible(picture: np.ndarray, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The picture where it is masked, and the image, resized to the picture, elsewhere.

    The reader sees what the encoder saw, and the prediction continue it.
    """
    masked = enlarge(mask, picture.shape[:2])[..., None] > 0
    return np.where(masked, picture, resize(image, picture.shape[:2]))


def enlarge(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[g_h, g_w] -> [h, w] by repetition."""
    return mask.repeat(size[0] // mask.shape[0], axis=0).repeat(size[1] // mask.shape[1], axis=1)


def resize(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The picture at (h, w): enlarged pixels stay squares, reduced ones are averaged."""
    h, w = size
    if picture.shape[:2] == (h, w):
        return picture
    enlarging = h >= picture.shape[0] and w >= picture.shape[1]
    method = Image.Resampling.NEAREST if enlarging else Image.Resampling.BOX
    return np.asarray(Image.fromarray(picture).resize((w, h), method))


def labeled_grid(
    rows: Sequence[Sequence[np.ndarray]],
    headings: Sequence[str],
    panel: tuple[int, int],
    sides: Sequence[str] = (),
    caption: str = "",
) -> np.ndarray:
    """Pictures side by side under their column's heading, one row per list, every panel at (h, w) pixels.

    Args:
        rows: uint8 pictures.
        headings: one a column.
        panel: (h, w) of every picture.
        sides: one a row, written upwards at its left; none for no such column.
        caption: lines below the grid.

    Returns:
        uint8 [h, w, 3].

    Raises:
        ValueError: a row whose length is not that of the headings.
    """
    if any(len(row) != len(headings) for row in rows):
        raise ValueError(f"rows of {sorted({len(row) for row in rows})} pictures under {len(headings)} headings")
    h, w = panel
    font_size = max(9, min(18, w // 11))
    font, line = ImageFont.load_default(font_size), round(font_size * 1.3)
    top = GAP + max(heading.count("\n") + 1 for heading in headings) * line
    left = GAP + (line if sides else 0)
    bottom = top + GAP + len(rows) * (h + GAP)
    size = left + len(headings) * (w + GAP), bottom + ((caption.count("\n") + 1) * line + GAP if caption else 0)
    canvas = Image.new("RGB", size, _BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for column, heading in enumerate(headings):
        middle = left + column * (w + GAP) + w / 2
        draw.multiline_text((middle, top), heading, _INK, font, anchor="md", align="center", spacing=2)
        for row, pictures in enumerate(rows):
            place = left + column * (w + GAP), top + GAP + row * (h + GAP)
            canvas.paste(Image.fromarray(resize(pictures[column], panel)), place)
    for row, text in enumerate(sides):
        strip = Image.new("RGB", (h, line), _BACKGROUND)
        ImageDraw.Draw(strip).text((h / 2, line / 2), text, _INK, font, anchor="mm")
        canvas.paste(strip.transpose(Image.Transpose.ROTATE_90), (GAP // 2, top + GAP + row * (h + GAP)))
    if caption:
        draw.multiline_text((left, bottom), caption, _INK, font, spacing=2)
    return np.asarray(canvas)
