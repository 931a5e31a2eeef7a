"""Names of the authors' PyTorch release beside ours, and how each array is laid out in either.

One list of rules serves both directions: a rule holds a pattern over our paths, the release's name, and a layout. `<i>`
and `<j>` stand for numbers. Layouts: "same"; "linear" (ours in x out, theirs out x in); "patch", of any convolution
(ours h x w x in x out, theirs out x in x h x w); "deconv" (ours in x h x w x out, theirs in x out x h x w); "conv1x1"
(ours in x out, theirs out x in x 1 x 1); "token" (ours d, theirs 1 x 1 x d); "positions" (ours n x d, theirs 1 x n x
d).
"""

import functools
import re
from collections.abc import Iterable, Mapping

import numpy as np

_BLOCK = (
    ("norm1/scale", "norm1.weight", "same"),
    ("norm1/bias", "norm1.bias", "same"),
    ("attention/qkv/kernel", "attn.qkv.weight", "linear"),
    ("attention/qkv/bias", "attn.qkv.bias", "same"),
    ("attention/proj/kernel", "attn.proj.weight", "linear"),
    ("attention/proj/bias", "attn.proj.bias", "same"),
    ("norm2/scale", "norm2.weight", "same"),
    ("norm2/bias", "norm2.bias", "same"),
    ("mlp/fc1/kernel", "mlp.fc1.weight", "linear"),
    ("mlp/fc1/bias", "mlp.fc1.bias", "same"),
    ("mlp/fc2/kernel", "mlp.fc2.weight", "linear"),
    ("mlp/fc2/bias", "mlp.fc2.bias", "same"),
)

VIT_ENCODER = (
    ("encoder/class_token", "cls_token", "token"),
    ("encoder/position_embedding", "pos_embed", "positions"),
    ("encoder/patch_embed/kernel", "patch_embed.proj.weight", "patch"),
    ("encoder/patch_embed/bias", "patch_embed.proj.bias", "same"),
    *((f"encoder/blocks/<i>/{ours}", f"blocks.<i>.{theirs}", layout) for ours, theirs, layout in _BLOCK),
)

VIT_CLASSIFIER = (
    *VIT_ENCODER,
    ("norm/scale", "fc_norm.weight", "same"),
    ("norm/bias", "fc_norm.bias", "same"),
    ("head/kernel", "head.weight", "linear"),
    ("head/bias", "head.bias", "same"),
)


def vit_decoder(index: int, log2_scale: int) -> tuple[tuple[str, str, str], ...]:
    """The rules of one ViT decoder. In the release the numbering of `pred` depends on how the decoder rescales."""
    ours, theirs = f"decoders/{index}", f"decoder.{index}"
    rules = [
        (f"{ours}/norm/scale", f"norm.{index}.weight", "same"),
        (f"{ours}/norm/bias", f"norm.{index}.bias", "same"),
        (f"{ours}/embed/kernel", f"{theirs}.embed.weight", "linear"),
        (f"{ours}/embed/bias", f"{theirs}.embed.bias", "same"),
        (f"{ours}/mask_token", f"{theirs}.mask_token", "token"),
        *((f"{ours}/blocks/<j>/{a}", f"{theirs}.blocks.<j>.{b}", layout) for a, b, layout in _BLOCK),
        (f"{ours}/out_norm/scale", f"{theirs}.norm.weight", "same"),
        (f"{ours}/out_norm/bias", f"{theirs}.norm.bias", "same"),
    ]
    position = 0
    for i in range(max(log2_scale, 0)):
        rules.append((f"{ours}/upsamples/{i}/kernel", f"{theirs}.pred.{position}.weight", "deconv"))
        rules.append((f"{ours}/upsamples/{i}/bias", f"{theirs}.pred.{position}.bias", "same"))
        if i + 1 < log2_scale:
            rules.append((f"{ours}/upsample_norms/{i}/scale", f"{theirs}.pred.{position + 1}.weight", "same"))
            rules.append((f"{ours}/upsample_norms/{i}/bias", f"{theirs}.pred.{position + 1}.bias", "same"))
            position += 3  # transposed convolution, norm, GELU
        else:
            position += 1
    position += log2_scale < 0  # a pooling layer comes first
    rules.append((f"{ours}/predict/kernel", f"{theirs}.pred.{position}.weight", "conv1x1"))
    rules.append((f"{ours}/predict/bias", f"{theirs}.pred.{position}.bias", "same"))
    return tuple(rules)


_SWIN_BLOCK = (
    *_BLOCK,
    ("attention/relative_position_bias", "attn.relative_position_bias_table", "same"),
)


def swin_encoder(prefix: str = "") -> tuple[tuple[str, str, str], ...]:
    """The rules of a Swin encoder; `prefix` is "encoder." in pre-training, "backbone." in segmentation, else ""."""
    stage, merging = f"{prefix}layers.<i>", "encoder/stages/<i>/merging"
    return (
        ("encoder/patch_embed/kernel", f"{prefix}patch_embed.proj.weight", "patch"),
        ("encoder/patch_embed/bias", f"{prefix}patch_embed.proj.bias", "same"),
        ("encoder/patch_norm/scale", f"{prefix}patch_embed.norm.weight", "same"),
        ("encoder/patch_norm/bias", f"{prefix}patch_embed.norm.bias", "same"),
        *((f"encoder/stages/<i>/blocks/<j>/{a}", f"{stage}.blocks.<j>.{b}", layout) for a, b, layout in _SWIN_BLOCK),
        (f"{merging}/norm/scale", f"{stage}.downsample.norm.weight", "same"),
        (f"{merging}/norm/bias", f"{stage}.downsample.norm.bias", "same"),
        (f"{merging}/reduction/kernel", f"{stage}.downsample.reduction.weight", "linear"),
    )


SWIN_HEAD = (
    ("norm/scale", "norm.weight", "same"),
    ("norm/bias", "norm.bias", "same"),
    ("head/kernel", "head.weight", "linear"),
    ("head/bias", "head.bias", "same"),
)


def swin_decoder(index: int) -> tuple[tuple[str, str, str], ...]:
    """The rules of one Swin decoder. The release keeps the taps' norms in its encoder."""
    ours, theirs = f"decoders/{index}", f"decoder.{index}"
    return (
        (f"{ours}/norm/scale", f"encoder.norm.{index}.weight", "same"),
        (f"{ours}/norm/bias", f"encoder.norm.{index}.bias", "same"),
        (f"{ours}/embed/kernel", f"{theirs}.embed.weight", "linear"),
        (f"{ours}/embed/bias", f"{theirs}.embed.bias", "same"),
        (f"{ours}/mask_token", f"{theirs}.mask_token", "token"),
        *((f"{ours}/blocks/<j>/{a}", f"{theirs}.blocks.<j>.{b}", layout) for a, b, layout in _BLOCK),
        (f"{ours}/out_norm/scale", f"{theirs}.norm.weight", "same"),
        (f"{ours}/out_norm/bias", f"{theirs}.norm.bias", "same"),
        (f"{ours}/predict/kernel", f"{theirs}.pred.weight", "linear"),
        (f"{ours}/predict/bias", f"{theirs}.pred.bias", "same"),
    )


_CONV_NORM = (
    ("conv/kernel", "conv.weight", "patch"),
    ("norm/scale", "bn.weight", "same"),
    ("norm/bias", "bn.bias", "same"),
    ("norm/mean", "bn.running_mean", "same"),
    ("norm/var", "bn.running_var", "same"),
)


def _conv_norm(ours: str, theirs: str) -> tuple[tuple[str, str, str], ...]:
    return tuple((f"{ours}/{a}", f"{theirs}.{b}", layout) for a, b, layout in _CONV_NORM)


SEGMENTATION_HEADS = (
    *_conv_norm("decode_head/pooled/<i>", "decode_head.psp_modules.<i>.1"),
    *_conv_norm("decode_head/bottleneck", "decode_head.bottleneck"),
    *_conv_norm("decode_head/laterals/<i>", "decode_head.lateral_convs.<i>"),
    *_conv_norm("decode_head/fpn/<i>", "decode_head.fpn_convs.<i>"),
    *_conv_norm("decode_head/fpn_bottleneck", "decode_head.fpn_bottleneck"),
    ("decode_head/classifier/linear/kernel", "decode_head.conv_seg.weight", "conv1x1"),
    ("decode_head/classifier/linear/bias", "decode_head.conv_seg.bias", "same"),
    *_conv_norm("auxiliary_head/conv", "auxiliary_head.convs.0"),
    ("auxiliary_head/classifier/linear/kernel", "auxiliary_head.conv_seg.weight", "conv1x1"),
    ("auxiliary_head/classifier/linear/bias", "auxiliary_head.conv_seg.bias", "same"),
)

VIT_SEGMENTER = (
    *((ours, f"backbone.{theirs}", layout) for ours, theirs, layout in VIT_ENCODER),
    ("encoder/blocks/<i>/scale1", "backbone.blocks.<i>.gamma_1", "same"),
    ("encoder/blocks/<i>/scale2", "backbone.blocks.<i>.gamma_2", "same"),
    (
        "encoder/blocks/<i>/attention/relative_position_bias",
        "backbone.blocks.<i>.attn.relative_position_bias_table",
        "same",
    ),
    ("pyramid/up4_first/kernel", "backbone.fpn1.0.weight", "deconv"),
    ("pyramid/up4_first/bias", "backbone.fpn1.0.bias", "same"),
    *((f"pyramid/up4_norm/{a[5:]}", f"backbone.fpn1.1.{b[3:]}", layout) for a, b, layout in _CONV_NORM[1:]),
    ("pyramid/up4_second/kernel", "backbone.fpn1.3.weight", "deconv"),
    ("pyramid/up4_second/bias", "backbone.fpn1.3.bias", "same"),
    ("pyramid/up2/kernel", "backbone.fpn2.0.weight", "deconv"),
    ("pyramid/up2/bias", "backbone.fpn2.0.bias", "same"),
    *SEGMENTATION_HEADS,
)

SWIN_PYRAMID = (
    *swin_encoder("backbone."),
    ("pyramid/norms/<i>/scale", "backbone.norm<i>.weight", "same"),
    ("pyramid/norms/<i>/bias", "backbone.norm<i>.bias", "same"),
)

SWIN_SEGMENTER = (*SWIN_PYRAMID, *SEGMENTATION_HEADS)


Rules = Iterable[tuple[str, str, str]]


def release_name(path: str, rules: Rules) -> tuple[str, str] | None:
    """The release's name and the layout of one of our paths; None where no rule covers it."""
    for ours, theirs, layout in rules:
        if (name := _rewrite(path, ours, theirs)) is not None:
            return name, layout
    return None


def our_path(name: str, rules: Rules) -> tuple[str, str] | None:
    """Our path and the layout of one of the release's names; None where no rule covers it."""
    for ours, theirs, layout in rules:
        if (path := _rewrite(name, theirs, ours)) is not None:
            return path, layout
    return None


def _rewrite(text: str, pattern: str, result: str) -> str | None:
    """`result` with the numbers that `text` has in the places of `pattern`; None where they do not match."""
    match = _compiled(pattern).fullmatch(text)
    return re.sub(r"<([ij])>", lambda m: match[m[1]], result) if match else None


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace("<i>", r"(?P<i>\d+)").replace("<j>", r"(?P<j>\d+)"))


def from_release(array: np.ndarray, layout: str) -> np.ndarray:
    """An array of the release, in our layout."""
    match layout:
        case "same":
            return array
        case "linear":
            return array.T
        case "patch":
            return array.transpose(2, 3, 1, 0)
        case "deconv":
            return array.transpose(0, 2, 3, 1)
        case "conv1x1":
            return array[:, :, 0, 0].T
        case "token":
            return array.reshape(-1)
        case "positions":
            return array[0]
    raise ValueError(f"no layout is called {layout!r}")


def to_release(array: np.ndarray, layout: str) -> np.ndarray:
    """The inverse of `from_release`."""
    match layout:
        case "same":
            return array
        case "linear":
            return array.T
        case "patch":
            return array.transpose(3, 2, 0, 1)
        case "deconv":
            return array.transpose(0, 3, 1, 2)
        case "conv1x1":
            return array.T[:, :, None, None]
        case "token":
            return array.reshape(1, 1, -1)
        case "positions":
            return array[None]
    raise ValueError(f"no layout is called {layout!r}")


def import_arrays(source: Mapping[str, np.ndarray], paths: Iterable[str], rules: Rules) -> dict[str, np.ndarray]:
    """Our flat {path: array} from the release's {name: array}.

    Raises:
        KeyError: paths that no rule covers, or names that the source lacks, all of them in one message.
    """
    rules = tuple(rules)
    found, problems = {}, []
    for path in paths:
        named = release_name(path, rules)
        if named is None:
            problems.append(f"{path}: no rule")
        elif named[0] not in source:
            problems.append(f"{path}: {named[0]} is missing")
        else:
            found[path] = from_release(np.asarray(source[named[0]]), named[1])
    if problems:
        raise KeyError("; ".join(problems))
    return found
