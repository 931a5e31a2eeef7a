"""Predicted masks over boxes, pasted into the image."""

import numpy as np

MASK_THRESHOLD = 0.5


def paste(mask: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask over a box as pixels of the image: bilinear, with half-pixel centers, zero outside the mask.

    Args:
        mask: float [s, s], probabilities.
        box: [4], in pixels; it may extend beyond the image.
        size: (h, w) of the image.

    Returns:
        uint8 [h, w], 1 where the probability at the center of the pixel is at least one half.
    """
    out = np.zeros(size, np.uint8)
    left, top, right, bottom = map(float, box)
    x0, x1 = max(0, int(np.floor(left)) - 1), min(size[1], int(np.ceil(right)) + 1)
    y0, y1 = max(0, int(np.floor(top)) - 1), min(size[0], int(np.ceil(bottom)) + 1)
    if x1 <= x0 or y1 <= y0 or right <= left or bottom <= top:
        return out
    rows = _weights(np.arange(y0, y1), top, bottom, mask.shape[0])
    columns = _weights(np.arange(x0, x1), left, right, mask.shape[1])
    out[y0:y1, x0:x1] = rows @ np.asarray(mask, np.float64) @ columns.T >= MASK_THRESHOLD
    return out


def _weights(pixels: np.ndarray, start: float, end: float, cells: int) -> np.ndarray:
    """Bilinear weights [pixels, cells], at the centers of the pixels, of cells spread from `start` to `end`."""
    at = (pixels + 0.5 - start) / (end - start) * cells - 0.5
    return np.maximum(1 - np.abs(at[:, None] - np.arange(cells)), 0)
