"""Names of a Swin in files of the release, timm and Transformers.

The release's fine-tuned models bear the names of the original Swin; timm has others for merging and head.
"""

import dataclasses
import re

import numpy as np

from localmim_jax.convert import derived, interpolate, names, transformers_names
from localmim_jax.convert.interpolate import square_side
from localmim_jax.convert.naming import Arrays, Naming, Scheme, TimmModel, TransformersModel
from localmim_jax.convert.weights import Weights
from localmim_jax.errors import ConfigError
from localmim_jax.models.info import ModelInfo

_BLOCK = (
    *names.BLOCK,
    ("attention/relative_position_bias", "attn.relative_position_bias_table", "same"),
)


def encoder(prefix: str = "") -> tuple[tuple[str, str, str], ...]:
    """The rules of a Swin encoder; `prefix` is "encoder." in pre-training, "backbone." in segmentation, else ""."""
    stage, merging = f"{prefix}layers.<i>", "encoder/stages/<i>/merging"
    return (
        ("encoder/patch_embed/kernel", f"{prefix}patch_embed.proj.weight", "patch"),
        ("encoder/patch_embed/bias", f"{prefix}patch_embed.proj.bias", "same"),
        ("encoder/patch_norm/scale", f"{prefix}patch_embed.norm.weight", "same"),
        ("encoder/patch_norm/bias", f"{prefix}patch_embed.norm.bias", "same"),
        *((f"encoder/stages/<i>/blocks/<j>/{a}", f"{stage}.blocks.<j>.{b}", layout) for a, b, layout in _BLOCK),
        (f"{merging}/norm/scale", f"{stage}.downsample.norm.weight", "same"),
        (f"{merging}/norm/bias", f"{stage}.downsample.norm.bias", "same"),
        (f"{merging}/reduction/kernel", f"{stage}.downsample.reduction.weight", "linear"),
    )


HEAD = (
    ("norm/scale", "norm.weight", "same"),
    ("norm/bias", "norm.bias", "same"),
    ("head/kernel", "head.weight", "linear"),
    ("head/bias", "head.bias", "same"),
)


def decoder(index: int) -> tuple[tuple[str, str, str], ...]:
    """The rules of one Swin decoder. The release keeps the taps' norms in its encoder."""
    ours, theirs = f"decoders/{index}", f"decoder.{index}"
    return (
        (f"{ours}/norm/scale", f"encoder.norm.{index}.weight", "same"),
        (f"{ours}/norm/bias", f"encoder.norm.{index}.bias", "same"),
        (f"{ours}/embed/kernel", f"{theirs}.embed.weight", "linear"),
        (f"{ours}/embed/bias", f"{theirs}.embed.bias", "same"),
        (f"{ours}/mask_token", f"{theirs}.mask_token", "token"),
        *((f"{ours}/blocks/<j>/{a}", f"{theirs}.blocks.<j>.{b}", layout) for a, b, layout in names.BLOCK),
        (f"{ours}/out_norm/scale", f"{theirs}.norm.weight", "same"),
        (f"{ours}/out_norm/bias", f"{theirs}.norm.bias", "same"),
        (f"{ours}/predict/kernel", f"{theirs}.pred.weight", "linear"),
        (f"{ours}/predict/bias", f"{theirs}.pred.bias", "same"),
    )


def timm_encoder(num_stages: int) -> tuple[tuple[str, str, str], ...]:
    """A Swin encoder: here a patch merging begins the stage after it, in the release it ends its own."""
    merging = r"layers.<i>.downsample"
    rules = [rule for rule in encoder() if merging not in rule[1]]
    for ours, theirs, layout in encoder():
        if merging in theirs:
            rules += [
                (ours.replace("<i>", f"{i}"), theirs.replace("<i>", f"{i + 1}"), layout) for i in range(num_stages - 1)
            ]
    return tuple(rules)


TIMM_HEAD = (
    ("norm/scale", "norm.weight", "same"),
    ("norm/bias", "norm.bias", "same"),
    ("head/kernel", "head.fc.weight", "linear"),
    ("head/bias", "head.fc.bias", "same"),
)

PYRAMID = (
    *encoder("backbone."),
    ("pyramid/norms/<i>/scale", "backbone.norm<i>.weight", "same"),
    ("pyramid/norms/<i>/bias", "backbone.norm<i>.bias", "same"),
)

SEGMENTER = (*PYRAMID, *names.SEGMENTATION_HEADS)

TRANSFORMERS = (
    *transformers_names.AROUND,
    ("encoder/patch_norm/scale", "embeddings.norm.weight", "same"),
    ("encoder/patch_norm/bias", "embeddings.norm.bias", "same"),
    *transformers_names.block("encoder/stages/<i>/blocks/<j>", "encoder.layers.<i>.blocks.<j>", "self"),
    (
        "encoder/stages/<i>/blocks/<j>/attention/relative_position_bias",
        "encoder.layers.<i>.blocks.<j>.attention.self.relative_position_bias_table",
        "same",
    ),
    ("encoder/stages/<i>/merging/norm/scale", "encoder.layers.<i>.downsample.norm.weight", "same"),
    ("encoder/stages/<i>/merging/norm/bias", "encoder.layers.<i>.downsample.norm.bias", "same"),
    ("encoder/stages/<i>/merging/reduction/kernel", "encoder.layers.<i>.downsample.reduction.weight", "linear"),
)


class SwinNaming(Naming):
    """The names of a Swin."""

    encoder = encoder()

    def recognize(self, arrays: Arrays, origin: str) -> Scheme | None:
        """The release's pre-training names, the original Swin's, timm's, or Transformers'."""
        if (theirs := transformers_names.joined(arrays)) is not None:
            return (
                _transformers(theirs) if any(name.startswith("encoder.layers.0.blocks.") for name in theirs) else None
            )
        if any(name.startswith("encoder.layers.") for name in arrays):
            if any(re.fullmatch(_RELEASE_DECODER, name) for name in arrays):
                return _release_pretraining(arrays, origin)
            return _pretrained_encoder(arrays)
        return _plain(arrays) if any(name.startswith("layers.0.blocks.") for name in arrays) else None

    def standard_order(self, arrays: Arrays) -> dict[str, np.ndarray]:
        """Pre-training files of the release have another order of patch merging (docs/differences.md)."""
        return swap_merging_order(arrays)

    def release(self, weights: Weights) -> dict[str, np.ndarray]:
        """A pre-training model with its fixed arrays, or a fine-tuned one with its constants."""
        info, arrays = weights.info, weights.arrays
        if info.kind == "pretrain":
            count = len(info.log2_scale or ())
            rules = [*encoder("encoder."), *(rule for k in range(count) for rule in decoder(k))]
            renamed = names.rename(weights.origin, swap_merging_order(arrays), rules, "the release")
            return renamed | derived.of_pretraining(info, arrays)
        if info.head_order == "norm_pool":
            raise ConfigError(
                f"{weights.origin}: its head follows a norm before the pooling (head_order='norm_pool'), where the "
                "release pools first: the same weights would give other logits there. Export the encoder alone, or for "
                "timm"
            )
        renamed = names.rename(weights.origin, arrays, [*encoder(), *HEAD], "the release")
        return renamed | derived.window_buffers(info, arrays)

    def timm(self, weights: Weights) -> dict[str, np.ndarray]:
        """timm's SwinTransformer, whose head normalizes before it pools."""
        info, arrays = weights.info, weights.arrays
        if info.kind == "classifier" and info.head_order != "norm_pool":
            raise ConfigError(
                f"{weights.origin}: its head pools before the norm (head_order='pool_norm', as the release), where "
                "timm's Swin normalizes first: the same weights would give other logits there. Export the encoder alone"
            )
        stages = {match[1] for path in arrays if (match := re.match(r"encoder/stages/(\d+)/", path))}
        rules = [*timm_encoder(len(stages)), *TIMM_HEAD]
        return names.rename(weights.origin, arrays, rules, "timm's Swin")

    def timm_model(self, weights: Weights) -> TimmModel:
        """timm's SwinTransformer, whose windows may differ from stage to stage."""
        info, arrays = weights.info, weights.arrays
        depths, windows = _depths(arrays), _windows(arrays)
        first = [windows[sum(depths[:stage])] or 0 for stage in range(len(depths))]
        if None in windows or sorted(first, reverse=True) != first:
            raise ConfigError(f"{weights.origin} has windows of {first} tokens a side, which timm's Swin cannot have")
        width, hidden = arrays["encoder/stages/0/blocks/0/mlp/fc1/kernel"].shape
        settings = {
            "embed_dim": width,
            "depths": depths,
            "num_heads": list(info.num_heads or ()),
            "window_size": first[0],
            "mlp_ratio": hidden / width,
            "drop_path_rate": 0.0,
            "global_pool": "avg",
        }
        sizes = {(96, 6): "tiny", (96, 18): "small", (192, 18): "large"}
        size = sizes.get((width, depths[2] if len(depths) > 2 else 0), "base")
        num_features = width * 2 ** (len(depths) - 1)
        return TimmModel(f"swin_{size}_patch4_window7_224", self.timm(weights), settings, num_features, "head.fc")

    def transformers(self, weights: Weights) -> TransformersModel:
        """Transformers' Swin, whose windows have one size and whose head normalizes before it pools."""
        info, arrays, origin = weights.info, weights.arrays, weights.origin
        if info.kind == "classifier" and info.head_order != "norm_pool":
            raise ConfigError(
                f"{origin}: its head pools before the norm (head_order='pool_norm'), where Transformers' Swin "
                "normalizes first: the same weights would give other logits there. Export the encoder alone "
                "(--part=encoder), or fine-tune with model.head_order=norm_pool"
            )
        windows = set(_windows(arrays))
        if len(windows) != 1 or None in windows:
            raise ConfigError(
                f"{origin} has windows of {sorted(map(str, windows))} tokens a side in different stages, where "
                "Transformers' Swin has one size: fine-tune at an image size whose last grid is as large as the window"
            )
        width, hidden = arrays["encoder/stages/0/blocks/0/mlp/fc1/kernel"].shape
        settings = {
            "embed_dim": width,
            "depths": _depths(arrays),
            "num_heads": list(info.num_heads or ()),
            "window_size": windows.pop(),
            "mlp_ratio": hidden / width,
            "use_absolute_embeddings": False,
            "drop_path_rate": 0.0,
        }
        return TransformersModel("Swin", TRANSFORMERS, settings)


NAMING = SwinNaming()
_IN_BLOCK = r"encoder/stages/(\d+)/blocks/(\d+)/"
_RELEASE_DECODER = r"decoder\.\d+\.((embed|blocks|norm|pred)\..*|mask_token|pos_embed)"
_BESIDE_AN_ENCODER = (
    (r"encoder\.mask_token", "SimMIM's mask token", None),
    (r"decoder\.0\.(weight|bias)", "SimMIM's decoder", None),
    (r"encoder\.norm\.\d+\.(weight|bias)", "norms of the release's taps, whose decoders are missing", None),
    *derived.DERIVED,
)
_UNPROVEN_MERGING = (
    "no decoder of the release proves its order of patch merging, so it is taken to be the standard one; if this is an "
    "encoder of the release's pre-training, say checkpoint.standard_merging=false, or --nostandard_merging"
)
_UNTOLD_HEAD_ORDER = (
    "its names do not tell whether its head pools before the norm (the release's) or after it (the original Swin's): "
    "the model that loads it decides (model.head_order), and convert takes the release's unless --head_order=norm_pool"
)


def _depths(arrays: Arrays) -> list[int]:
    """Blocks of each stage."""
    blocks = {tuple(map(int, match.groups())) for path in arrays if (match := re.match(_IN_BLOCK, path))}
    return [sum(stage == i for stage, _ in blocks) for i in range(1 + max(stage for stage, _ in blocks))]


def _windows(arrays: Arrays) -> list[int | None]:
    """The side of each block's window, in tokens, from the first block to the last."""
    tables = {
        (int(match[1]), int(match[2])): array
        for path, array in arrays.items()
        if (match := re.fullmatch(derived.BIAS_TABLE, path))
    }
    return [interpolate.window_of(len(tables[place])) for place in sorted(tables)]


def swap_merging_order(arrays: Arrays) -> dict[str, np.ndarray]:
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


def _transformers(arrays: Arrays) -> Scheme:
    """Transformers' Swin; the names of its bias tables differ from the others' by their parent alone."""
    stages, table = names.count(arrays, r"encoder\.layers\.(\d+)\..*"), ".attention.self.relative_position_bias_table"
    renamed = {name.replace(table, ".attn.relative_position_bias_table"): array for name, array in arrays.items()}
    info = ModelInfo("swin", "encoder", None, _heads(renamed, "encoder.", stages))
    if "classifier.weight" in arrays:
        info = dataclasses.replace(info, kind="classifier", pool="mean", head_order="norm_pool")
    rules = (*TRANSFORMERS, *transformers_names.HEAD)
    return Scheme(info, rules, (*transformers_names.BESIDE, *derived.WINDOWS), arrays)


def _pretrained_encoder(arrays: Arrays) -> Scheme:
    """A file without the release's decoders: SimMIM's has the same names, and the standard order of patch merging."""
    prefix = "encoder."
    stages = names.count(arrays, r"encoder\.layers\.(\d+)\..*")
    info = ModelInfo("swin", "encoder", _image_size(arrays, prefix), _heads(arrays, prefix, stages))
    is_simmim = not {"encoder.norm.weight", "encoder.mask_token", "decoder.0.weight"}.isdisjoint(arrays)
    assumed = {} if is_simmim else {"merging": _UNPROVEN_MERGING}
    norm = [(ours, f"{prefix}{theirs}", layout) for ours, theirs, layout in HEAD if ours.startswith("norm/")]
    rules = (*encoder(prefix), *norm)
    return Scheme(info, rules, _BESIDE_AN_ENCODER, release_order=False if is_simmim else None, assumed=assumed)


def _release_pretraining(arrays: Arrays, origin: str) -> Scheme:
    count, stages = names.count(arrays, r"decoder\.(\d+)\..*"), names.count(arrays, r"encoder\.layers\.(\d+)\..*")
    decoders = [rule for k in range(count) for rule in decoder(k)]
    size, heads = _pretraining_image_size(arrays), _heads(arrays, "encoder.", stages)
    taps = tuple(range(1, stages + 1)) if count == stages else None
    info = ModelInfo(
        "swin", "pretrain", size, heads, taps=taps, log2_scale=(0,) * count, **derived.target_of(arrays, origin)
    )
    return Scheme(info, (*encoder("encoder."), *decoders), derived.DERIVED, release_order=True)


def _plain(arrays: Arrays) -> Scheme:
    """The release's fine-tuned Swin bears the names of the original Swin; timm has others for merging and head."""
    stages = names.count(arrays, r"layers\.(\d+)\..*")
    info, assumed = ModelInfo("swin", "encoder", _image_size(arrays, ""), _heads(arrays, "", stages)), {}
    is_timm = f"layers.{stages - 1}.downsample.norm.weight" in arrays
    if any(name.startswith("head.") for name in arrays):
        order = "norm_pool" if is_timm else "pool_norm"
        info = dataclasses.replace(info, kind="classifier", pool="mean", head_order=order)
        assumed = {} if is_timm else {"head_order": _UNTOLD_HEAD_ORDER}
    if is_timm:
        return Scheme(info, (*timm_encoder(stages), *TIMM_HEAD), derived.DERIVED)
    return Scheme(info, (*encoder(), *HEAD), derived.DERIVED, assumed=assumed)


def _pretraining_image_size(arrays: Arrays) -> tuple[int, int] | None:
    """The first decoder works behind the first patch merging, so on a grid of half as many tokens a side."""
    positions, kernel = arrays.get("decoder.0.pos_embed"), arrays.get("encoder.patch_embed.proj.weight")
    if positions is None or kernel is None or positions.ndim != 3 or kernel.ndim != 4:
        return None
    side = 2 * square_side(positions.shape[1])
    return (side * kernel.shape[2], side * kernel.shape[3]) if side else None


def _image_size(arrays: Arrays, prefix: str) -> tuple[int, int] | None:
    """The mask of a shifted block has one entry a window: [windows, w^2, w^2]."""
    mask = arrays.get(f"{prefix}layers.0.blocks.1.attn_mask")
    kernel = arrays.get(f"{prefix}patch_embed.proj.weight")
    if mask is None or kernel is None or mask.ndim != 3 or kernel.ndim != 4:
        return None
    side = square_side(mask.shape[0]) * square_side(mask.shape[1])
    return (side * kernel.shape[2], side * kernel.shape[3]) if side else None


def _heads(arrays: Arrays, prefix: str, num_stages: int) -> tuple[int, ...] | None:
    """Attention heads of every stage, the second axis of its first bias table; None where one is missing."""
    first_tables = [f"{prefix}layers.{stage}.blocks.0.attn.relative_position_bias_table" for stage in range(num_stages)]
    shapes = [arrays[name].shape for name in first_tables if name in arrays]
    return tuple(shape[1] for shape in shapes) if [len(shape) for shape in shapes] == [2] * num_stages else None
