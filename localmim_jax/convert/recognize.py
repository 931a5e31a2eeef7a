"""Which model a file of weights holds, told by its names; then the arrays under our paths, in our layouts.

Every name of the file is used, or ignored for a stated reason, or reported as unexpected: nothing is dropped silently.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from localmim_jax.convert import interpolate, names, timm_names
from localmim_jax.convert.weights import Weights, info_from_json
from localmim_jax.errors import DataError
from localmim_jax.models.info import ModelInfo
from localmim_jax.models.positions import relative_position_index

GRADIENT_FILTERS = np.array(  # of `hog_enc.<k>.conv.weight`
    [[[[1, 0, -1], [2, 0, -2], [1, 0, -1]]], [[[1, 2, 1], [0, 0, 0], [-1, -2, -1]]]], np.float32
)
_HOG_BIAS = r"hog_enc\.(\d+)\.conv\.bias"
_NO_SUCH_NAME = "no part of this model has such a name"
_NDIM = {"linear": 2, "patch": 4, "deconv": 4, "conv1x1": 4, "token": 3, "positions": 3}


@dataclasses.dataclass(frozen=True)
class Scheme:
    """How a kind of file names its arrays.

    Attributes:
        info: what the names and shapes tell of the model.
        rules: as in `names`.
        ignored: (pattern of names, reason, check or None); a name whose array fails the check is unexpected.
    """

    info: ModelInfo
    rules: names.Rules
    ignored: tuple[tuple[str, str, Callable[[np.ndarray], bool] | None], ...] = ()


def recognize(
    arrays: Mapping[str, np.ndarray], extra: Mapping[str, Any], origin: str, standard_merging: bool = False
) -> Weights:
    """Weights from the content of a file as `files.read` returns it: ours, the release's, MAE's or timm's.

    Args:
        arrays: by name.
        extra: {"info": our own note, "args": the release's command line}, where present.
        origin: the file, for messages.
        standard_merging: a pre-training Swin under the release's names has its patch merging in the standard order
            already. The release's own files do not (docs/differences.md), so by default they are permuted.

    Raises:
        DataError: the names are of no model known here, or our note is damaged.
    """
    info = info_from_json(extra["info"], origin) if "info" in extra else None
    if any("/" in name for name in arrays):
        return _ours(arrays, info, origin)
    if all(name.startswith("module.") for name in arrays):  # saved from inside a data-parallel wrapper
        arrays = {name.removeprefix("module."): array for name, array in arrays.items()}
    scheme = _scheme(arrays, origin)
    if info is None:
        info = _with_command_line(scheme.info, extra.get("args", {}))
    found, ignored, unexpected = _apply(arrays, scheme)
    found = _as_float32(found, unexpected)
    if info.family == "swin" and info.kind == "pretrain" and not standard_merging:
        found = swap_merging_order(found)
    return Weights(found, info, origin, ignored, unexpected)


def swap_merging_order(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Patch merging between the order of the release's pre-training and the standard one; it is its own inverse.

    Pre-training joins a neighborhood as (0, 0), (0, 1), (1, 0), (1, 1) in (row, column), everybody else as (0, 0),
    (1, 0), (0, 1), (1, 1), so the two middle quarters of the merging norm and of the reduction's inputs change places.
    """
    swapped = dict(arrays)
    for path, array in arrays.items():
        if (
            re.fullmatch(r"encoder/stages/\d+/merging/(norm/(scale|bias)|reduction/kernel)", path)
            and len(array) % 4 == 0
        ):
            quarters = array.reshape(4, -1, *array.shape[1:])
            swapped[path] = quarters[[0, 2, 1, 3]].reshape(array.shape)
    return swapped


def _ours(arrays: Mapping[str, np.ndarray], info: ModelInfo | None, origin: str) -> Weights:
    if info is None:
        tops = {name.split("/")[0] for name in arrays}
        kind = "pretrain" if "decoders" in tops else "classifier" if "head" in tops else "encoder"
        info = ModelInfo("swin" if any(name.startswith("encoder/stages/") for name in arrays) else "vit", kind)
    unexpected = {name: _NO_SUCH_NAME for name in arrays if "/" not in name}
    known = {name: array for name, array in arrays.items() if name not in unexpected}
    return Weights(_as_float32(known, unexpected), info, origin, {}, unexpected)


def _scheme(arrays: Mapping[str, np.ndarray], origin: str) -> Scheme:
    pretrained = any(name.startswith("decoder.") for name in arrays)
    if "cls_token" in arrays and any(name.startswith("blocks.") for name in arrays):
        return _release_vit_pretraining(arrays, origin) if pretrained else _plain_vit(arrays)
    if any(name.startswith("encoder.layers.") for name in arrays):
        return _release_swin_pretraining(arrays, origin)
    if any(name.startswith("layers.0.blocks.") for name in arrays):
        return _plain_swin(arrays)
    shown = ", ".join(name[:40] for name in sorted(arrays)[:4])
    raise DataError(f"{origin} holds neither a ViT nor a Swin of LocalMIM, MAE or timm: its arrays are {shown}, ...")


def _release_vit_pretraining(arrays: Mapping[str, np.ndarray], origin: str) -> Scheme:
    log2_scale = tuple(_decoder_log2_scale(arrays, k) for k in range(_count(arrays, r"decoder\.(\d+)\..*")))
    decoders = [rule for k, log2_scale in enumerate(log2_scale) for rule in names.vit_decoder(k, log2_scale)]
    depth = _count(arrays, r"blocks\.(\d+)\..*")
    taps = (2, 4, depth - 2, depth) if len(log2_scale) == 4 else None
    info = ModelInfo(
        "vit", "pretrain", _vit_image_size(arrays), taps=taps, log2_scale=log2_scale, **_target(arrays, origin)
    )
    return Scheme(info, (*names.VIT_ENCODER, *decoders), _DERIVED)


def _plain_vit(arrays: Mapping[str, np.ndarray]) -> Scheme:
    """timm's names, which MAE and the release use for their fine-tuned models too."""
    size = _vit_image_size(arrays)
    if "head.weight" not in arrays:
        mae = ((timm_names.MAE_DECODER, "MAE's decoder", None),)
        return Scheme(ModelInfo("vit", "encoder", size), timm_names.VIT_FEATURES, mae)
    if "fc_norm.weight" in arrays:
        return Scheme(ModelInfo("vit", "classifier", size, pool="mean", head_order="pool_norm"), names.VIT_CLASSIFIER)
    info = ModelInfo("vit", "classifier", size, pool="class", head_order="pool_norm")
    return Scheme(info, timm_names.VIT_CLASS_TOKEN)


def _release_swin_pretraining(arrays: Mapping[str, np.ndarray], origin: str) -> Scheme:
    count, stages = _count(arrays, r"decoder\.(\d+)\..*"), _count(arrays, r"encoder\.layers\.(\d+)\..*")
    decoders = [rule for k in range(count) for rule in names.swin_decoder(k)]
    size, heads = _swin_pretraining_image_size(arrays), _swin_heads(arrays, "encoder.", stages)
    taps = tuple(range(1, stages + 1)) if count == stages else None
    info = ModelInfo("swin", "pretrain", size, heads, taps=taps, log2_scale=(0,) * count, **_target(arrays, origin))
    return Scheme(info, (*names.swin_encoder("encoder."), *decoders), _DERIVED)


def _plain_swin(arrays: Mapping[str, np.ndarray]) -> Scheme:
    """The release's fine-tuned Swin bears the names of the original Swin; timm has others for merging and head."""
    stages = _count(arrays, r"layers\.(\d+)\..*")
    info = ModelInfo("swin", "encoder", _swin_image_size(arrays), _swin_heads(arrays, "", stages))
    is_timm = f"layers.{stages - 1}.downsample.norm.weight" in arrays
    if any(name.startswith("head.") for name in arrays):
        order = "norm_pool" if is_timm else "pool_norm"
        info = dataclasses.replace(info, kind="classifier", pool="mean", head_order=order)
    if is_timm:
        return Scheme(info, (*timm_names.swin_encoder(stages), *timm_names.SWIN_HEAD), _DERIVED)
    return Scheme(info, (*names.swin_encoder(), *names.SWIN_HEAD), _DERIVED)


def _apply(
    arrays: Mapping[str, np.ndarray], scheme: Scheme
) -> tuple[dict[str, np.ndarray], dict[str, str], dict[str, str]]:
    """(arrays by path, ignored names with reasons, unexpected names with reasons)."""
    found: dict[str, np.ndarray] = {}
    ignored: dict[str, str] = {}
    unexpected: dict[str, str] = {}
    for name, array in arrays.items():
        entry = next((entry for entry in scheme.ignored if re.fullmatch(entry[0], name)), None)
        if entry is not None:
            fits = entry[2] is None or entry[2](array)
            (ignored if fits else unexpected)[name] = entry[1] if fits else f"other than the {entry[1]} expected here"
        elif (ours := names.our_path(name, scheme.rules)) is None:
            unexpected[name] = _NO_SUCH_NAME
        elif array.ndim != _NDIM.get(ours[1], array.ndim):
            unexpected[name] = f"of shape {list(array.shape)} where {_NDIM[ours[1]]} axes are expected"
        else:
            found[ours[0]] = names.from_release(array, ours[1])
    return found, ignored, unexpected


def _as_float32(arrays: Mapping[str, np.ndarray], unexpected: dict[str, str]) -> dict[str, np.ndarray]:
    """What is no finite number moves to `unexpected`."""
    result = {}
    for path, array in arrays.items():
        if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
            unexpected[path] = f"of type {array.dtype}"
        elif not np.isfinite(converted := np.asarray(array, np.float32)).all():
            unexpected[path] = "holds numbers that are not finite"
        else:
            result[path] = converted
    return result


def _with_command_line(info: ModelInfo, args: Mapping[str, Any]) -> ModelInfo:
    """Takes the image size from the release's arguments, where the arrays do not tell it."""
    size = args.get("input_size")
    if info.image_size is not None or type(size) is not int or not 0 < size < 2**16:
        return info
    return dataclasses.replace(info, image_size=(size, size))


def _count(arrays: Mapping[str, np.ndarray], pattern: str) -> int:
    """One more than the highest number, of at most three digits, in the group of `pattern`; 0 without a match."""
    numbers = [int(match[1]) for name in arrays if (match := re.fullmatch(pattern, name)) and len(match[1]) < 4]
    return max(numbers, default=-1) + 1


def _decoder_log2_scale(arrays: Mapping[str, np.ndarray], index: int) -> int:
    """log2 of a release ViT decoder's rescaling: a doubling is a transposed convolution, a pooling shifts `pred`."""
    doublings = sum(
        re.fullmatch(rf"decoder\.{index}\.pred\.\d+\.weight", name) is not None and array.shape[2:] == (2, 2)
        for name, array in arrays.items()
    )
    return doublings or (0 if f"decoder.{index}.pred.0.weight" in arrays else -1)


def _vit_image_size(arrays: Mapping[str, np.ndarray]) -> tuple[int, int] | None:
    positions, kernel = arrays.get("pos_embed"), arrays.get("patch_embed.proj.weight")
    if positions is None or kernel is None or positions.ndim != 3 or kernel.ndim != 4:
        return None
    side = _side(positions.shape[1] - 1)
    return (side * kernel.shape[2], side * kernel.shape[3]) if side else None


def _swin_pretraining_image_size(arrays: Mapping[str, np.ndarray]) -> tuple[int, int] | None:
    """The first decoder works behind the first patch merging, so on a grid of half as many tokens a side."""
    positions, kernel = arrays.get("decoder.0.pos_embed"), arrays.get("encoder.patch_embed.proj.weight")
    if positions is None or kernel is None or positions.ndim != 3 or kernel.ndim != 4:
        return None
    side = 2 * _side(positions.shape[1])
    return (side * kernel.shape[2], side * kernel.shape[3]) if side else None


def _swin_image_size(arrays: Mapping[str, np.ndarray]) -> tuple[int, int] | None:
    """The mask of a shifted block has one entry a window: [windows, w^2, w^2]."""
    mask, kernel = arrays.get("layers.0.blocks.1.attn_mask"), arrays.get("patch_embed.proj.weight")
    if mask is None or kernel is None or mask.ndim != 3 or kernel.ndim != 4:
        return None
    side = _side(mask.shape[0]) * _side(mask.shape[1])
    return (side * kernel.shape[2], side * kernel.shape[3]) if side else None


def _swin_heads(arrays: Mapping[str, np.ndarray], prefix: str, num_stages: int) -> tuple[int, ...] | None:
    """Attention heads of every stage, the second axis of its first bias table; None where one is missing."""
    first_tables = [f"{prefix}layers.{stage}.blocks.0.attn.relative_position_bias_table" for stage in range(num_stages)]
    shapes = [arrays[name].shape for name in first_tables if name in arrays]
    return tuple(shape[1] for shape in shapes) if [len(shape) for shape in shapes] == [2] * num_stages else None


def _side(count: int) -> int:
    """The side of a square of `count` places; 0 where it is none."""
    side = math.isqrt(max(count, 0))
    return side if side * side == count else 0


def _target(arrays: Mapping[str, np.ndarray], origin: str) -> dict[str, Any]:
    """The kind of target, and the frozen gradient biases where there are any."""
    if not any(name.startswith("hog_enc.") for name in arrays):
        return {"target": "pixels"}
    count = _count(arrays, _HOG_BIAS)
    biases = [arrays.get(f"hog_enc.{k}.conv.bias", np.zeros(0)) for k in range(count)]
    if any(bias.shape != (2,) or not np.isfinite(bias).all() for bias in biases):
        raise DataError(f"{origin}: hog_enc.<k>.conv.bias must be two numbers for every scale, or absent")
    return {"target": "hog", "hog_bias": tuple((float(x), float(y)) for x, y in biases) or None}


def _are_fixed_positions(array: np.ndarray) -> bool:
    """Whether this is the sine-cosine table of a square grid, with or without a class token."""
    if array.ndim != 3 or array.shape[2] % 4:
        return False
    for prefix in (0, 1):
        side = _side(array.shape[1] - prefix)
        if side and np.allclose(array[0], interpolate.fixed_positions((side, side), array.shape[2], prefix), atol=1e-5):
            return True
    return False


def _are_relative_positions(array: np.ndarray) -> bool:
    side = _side(array.shape[0]) if array.ndim == 2 else 0
    return side > 0 and np.array_equal(array, relative_position_index(side))


_DERIVED = (
    (r"decoder\.\d+\.pos_embed", "fixed sine-cosine positions", _are_fixed_positions),
    (r"hog_enc\.\d+\.conv\.weight", "fixed gradient filters", lambda array: np.array_equal(array, GRADIENT_FILTERS)),
    (_HOG_BIAS, "frozen gradient biases, model.target.hog_bias", None),
    (r".*\.relative_position_index", "relative position indices", _are_relative_positions),
    (r".*\.attn_mask", "shifted windows' masks", None),
)
