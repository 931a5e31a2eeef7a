"""Weights under the names of the authors' release or of timm, ready for their own loaders."""

import dataclasses
import re
from collections.abc import Mapping

import numpy as np

from localmim_jax.convert import interpolate, names, timm_names
from localmim_jax.convert.recognize import GRADIENT_FILTERS, swap_merging_order
from localmim_jax.convert.weights import POSITIONS, Weights
from localmim_jax.errors import ConfigError
from localmim_jax.models.info import ModelInfo
from localmim_jax.models.positions import relative_position_index

NAMINGS = ("localmim", "release", "timm")


def only_encoder(weights: Weights) -> Weights:
    """The encoder alone, which is what transfers."""
    arrays = {path: array for path, array in weights.arrays.items() if path.startswith("encoder/")}
    old = weights.info
    return dataclasses.replace(
        weights, arrays=arrays, info=ModelInfo(old.family, "encoder", old.image_size, old.num_heads)
    )


def with_last_norm(weights: Weights) -> Weights:
    """The encoder of a pre-training model and, as its final norm, that of the tap at its last layer if there is one."""
    layers = {match[0] for path in weights.arrays if (match := re.match(r"encoder/(blocks|stages)/\d+/", path))}
    encoder, taps = only_encoder(weights), weights.info.taps or ()
    if len(layers) not in taps:
        return encoder
    prefix = f"decoders/{taps.index(len(layers))}/norm/"
    norm = {f"norm/{leaf}": weights.arrays[f"{prefix}{leaf}"] for leaf in ("scale", "bias")}
    return dataclasses.replace(encoder, arrays=encoder.arrays | norm)


def export(weights: Weights, naming: str) -> tuple[dict[str, np.ndarray], ModelInfo]:
    """Every array under the names of `naming`, one of `NAMINGS`, with what can be derived and their loaders expect.

    For timm, a pre-training model leaves its decoders behind and keeps the norm of its last layer.

    Returns:
        (name -> array, the description of what they are now).

    Raises:
        ConfigError: an array has no name there, or the model cannot be expressed there; says why.
    """
    if weights.unexpected:
        shown = "; ".join(f"{name}: {reason}" for name, reason in list(weights.unexpected.items())[:8])
        raise ConfigError(
            f"{weights.origin} cannot be exported, {len(weights.unexpected)} of its arrays are of no use: {shown}"
        )
    match naming:
        case "localmim":
            return dict(weights.arrays), weights.info
        case "release":
            return _release(weights), weights.info
        case "timm":
            return _timm(weights)
    raise ConfigError(f"names are one of {', '.join(NAMINGS)}, not {naming!r}")


def _release(weights: Weights) -> dict[str, np.ndarray]:
    info, arrays = weights.info, weights.arrays
    taps = info.log2_scale or ()
    if info.family == "vit" and info.kind == "pretrain":
        decoders = [rule for k, log2_scale in enumerate(taps) for rule in names.vit_decoder(k, log2_scale)]
        return rename(weights.origin, arrays, [*names.VIT_ENCODER, *decoders], "the release") | _derived(info, arrays)
    if info.family == "vit":
        return rename(weights.origin, arrays, _vit_rules(weights), "the release")
    if info.kind == "pretrain":
        rules = [*names.swin_encoder("encoder."), *(rule for k in range(len(taps)) for rule in names.swin_decoder(k))]
        return rename(weights.origin, swap_merging_order(arrays), rules, "the release") | _derived(info, arrays)
    if info.head_order == "norm_pool":
        raise ConfigError(
            f"{weights.origin}: its head follows a norm before the pooling (head_order='norm_pool'), where the release "
            "pools first: the same weights would give other logits there. Export the encoder alone, or for timm"
        )
    renamed = rename(weights.origin, arrays, [*names.swin_encoder(), *names.SWIN_HEAD], "the release")
    return renamed | _window_buffers(info, arrays)


def _timm(weights: Weights) -> tuple[dict[str, np.ndarray], ModelInfo]:
    if weights.info.kind == "pretrain":
        weights = with_last_norm(weights)
    info, arrays = weights.info, weights.arrays
    if info.family == "vit":
        return rename(weights.origin, arrays, _vit_rules(weights), "timm's ViT"), info
    if info.kind == "classifier" and info.head_order != "norm_pool":
        raise ConfigError(
            f"{weights.origin}: its head pools before the norm (head_order='pool_norm', as the release), where timm's "
            "Swin normalizes first: the same weights would give other logits there. Export the encoder alone"
        )
    stages = {match[1] for path in arrays if (match := re.match(r"encoder/stages/(\d+)/", path))}
    rules = [*timm_names.swin_encoder(len(stages)), *timm_names.SWIN_HEAD]
    return rename(weights.origin, arrays, rules, "timm's Swin"), info


def _vit_rules(weights: Weights) -> names.Rules:
    info = weights.info
    if info.kind != "classifier":
        return timm_names.VIT_FEATURES
    if info.pool == "class":  # one token: normalized before or after is the same
        return timm_names.VIT_CLASS_TOKEN
    if info.head_order == "norm_pool":
        raise ConfigError(
            f"{weights.origin}: its head normalizes before it pools (head_order='norm_pool'), where the release's and "
            "timm's ViT pool first: the same weights would give other logits there. Export the encoder alone"
        )
    return names.VIT_CLASSIFIER


def rename(origin: str, arrays: Mapping[str, np.ndarray], rules: names.Rules, whose: str) -> dict[str, np.ndarray]:
    """Our arrays under the names and in the layouts of `rules`; the other arguments are for messages.

    Raises:
        ConfigError: a path that no rule covers.
    """
    rules, renamed, nameless = tuple(rules), {}, []
    for path, array in arrays.items():
        named = names.release_name(path, rules)
        if named is None:
            nameless.append(path)
        else:
            renamed[named[0]] = np.ascontiguousarray(names.to_release(array, named[1]))
    if nameless:
        more = f" and {len(nameless) - 6} more" if len(nameless) > 6 else ""
        alone = (
            "" if any(path.startswith("encoder/") for path in nameless) else " the encoder alone (--part=encoder), or"
        )
        raise ConfigError(
            f"{origin}: {whose} has no name for {', '.join(nameless[:6])}{more}; export{alone} with --names=localmim"
        )
    return renamed


def _derived(info: ModelInfo, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
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


def _window_buffers(info: ModelInfo, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The constants that a fine-tuned Swin of the release stores: relative position indices, shifted windows' masks."""
    buffers = {}
    patch = arrays["encoder/patch_embed/kernel"].shape[0]
    for path, table in arrays.items():
        match = re.fullmatch(r"encoder/stages/(\d+)/blocks/(\d+)/attention/relative_position_bias", path)
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
