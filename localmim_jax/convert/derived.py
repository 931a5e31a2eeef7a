"""What files of the release hold besides what is learned: fixed positions, gradient filters, indices and masks."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from localmim_jax.convert import interpolate
from localmim_jax.convert.names import count
from localmim_jax.convert.weights import POSITIONS
from localmim_jax.errors import DataError
from localmim_jax.models.info import ModelInfo
from localmim_jax.models.positions import relative_position_index

GRADIENT_FILTERS = np.array(  # of `hog_enc.<k>.conv.weight`
    [[[[1, 0, -1], [2, 0, -2], [1, 0, -1]]], [[[1, 2, 1], [0, 0, 0], [-1, -2, -1]]]], np.float32
)
BIAS_TABLE = r"encoder/stages/(\d+)/blocks/(\d+)/attention/relative_position_bias"
_HOG_BIAS = r"hog_enc\.(\d+)\.conv\.bias"


def of_pretraining(info: ModelInfo, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a pre-training file of the release holds besides what is learned: decoders' positions, gradient filters."""
    derived = {}
    patch, _, _, width = arrays["encoder/patch_embed/kernel"].shape
    for k in range(len(info.log2_scale or ())):
        if info.image_size is not None:
            # The first stage has the width of an embedded patch, every patch merging doubles it; a ViT keeps it.
            stride = patch * (len(arrays[f"decoders/{k}/norm/scale"]) // width)
            grid = (info.image_size[0] // stride, info.image_size[1] // stride)
            positions = interpolate.fixed_positions(
                grid, len(arrays[f"decoders/{k}/mask_token"]), int(POSITIONS in arrays)
            )
            derived[f"decoder.{k}.pos_embed"] = positions[None]
        if info.target == "hog":
            derived[f"hog_enc.{k}.conv.weight"] = GRADIENT_FILTERS
        if info.hog_bias is not None:
            derived[f"hog_enc.{k}.conv.bias"] = np.array(info.hog_bias[k], np.float32)
    return derived


def window_buffers(info: ModelInfo, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The constants that a fine-tuned Swin of the release stores: relative position indices, shifted windows' masks."""
    buffers = {}
    patch = arrays["encoder/patch_embed/kernel"].shape[0]
    for path, table in arrays.items():
        match = re.fullmatch(BIAS_TABLE, path)
        window = interpolate.window_of(len(table)) if match else None
        if match is None or window is None:
            continue
        stage, block = int(match[1]), int(match[2])
        name = f"layers.{stage}.blocks.{block}"
        buffers[f"{name}.attn.relative_position_index"] = relative_position_index(window).astype(np.int64)
        stride = patch * 2**stage
        grid = tuple(size // stride for size in info.image_size or (0, 0))
        if block % 2 and min(grid) > window and not any(side % window for side in grid):
            buffers[f"{name}.attn_mask"] = _shifted_window_mask(grid, window)
    return buffers


def _shifted_window_mask(grid: tuple[int, ...], window: int) -> np.ndarray:
    """0 where two tokens of a window lie side by side in the image too, -100 where the shift has joined far edges.

    float32 [windows, window^2, window^2].
    """
    shift = window // 2
    # Along an axis, what the cyclic shift brought from the other edge is the last `shift` places.
    rows, columns = (np.arange(side) >= side - shift for side in grid)
    joined = (2 * rows[:, None] + columns[None]).reshape(grid[0] // window, window, grid[1] // window, window)
    edge = joined.transpose(0, 2, 1, 3).reshape(-1, window * window)
    return np.where(edge[:, :, None] == edge[:, None, :], 0, -100).astype(np.float32)


def target_of(arrays: Mapping[str, np.ndarray], origin: str) -> dict[str, Any]:
    """The kind of target, and the frozen gradient biases where there are any."""
    if not any(name.startswith("hog_enc.") for name in arrays):
        return {"target": "pixels"}
    biases = [arrays.get(f"hog_enc.{k}.conv.bias", np.zeros(0)) for k in range(count(arrays, _HOG_BIAS))]
    if any(bias.shape != (2,) or not np.isfinite(bias).all() for bias in biases):
        raise DataError(f"{origin}: hog_enc.<k>.conv.bias must be two numbers for every scale, or absent")
    return {"target": "hog", "hog_bias": tuple((float(x), float(y)) for x, y in biases) or None}


def _are_fixed_positions(array: np.ndarray) -> bool:
    """Whether this is the sine-cosine table of a square grid, with or without a class token."""
    if array.ndim != 3 or array.shape[2] % 4:
        return False
    for prefix in (0, 1):
        side = interpolate.square_side(array.shape[1] - prefix)
        if side and np.allclose(array[0], interpolate.fixed_positions((side, side), array.shape[2], prefix), atol=1e-5):
            return True
    return False


def _are_relative_positions(array: np.ndarray) -> bool:
    side = interpolate.square_side(array.shape[0]) if array.ndim == 2 else 0
    return side > 0 and np.array_equal(array, relative_position_index(side))


# (pattern of names, reason to ignore them, check or None); an array that fails the check is unexpected.
WINDOWS = (
    (r".*\.relative_position_index", "relative position indices", _are_relative_positions),
    (r".*\.attn_mask", "shifted windows' masks", None),
)
DERIVED = (
    (r"decoder\.\d+\.pos_embed", "fixed sine-cosine positions", _are_fixed_positions),
    (r"hog_enc\.\d+\.conv\.weight", "fixed gradient filters", lambda array: np.array_equal(array, GRADIENT_FILTERS)),
    (_HOG_BIAS, "frozen gradient biases, model.target.hog_bias", None),
    *WINDOWS,
)
