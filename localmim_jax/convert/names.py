"""Rules between the names of arrays in others' files and our paths, and how each array is laid out in either.

One list of rules serves both directions: a rule holds a pattern over our paths, the other's name, and a layout. `<i>`
and `<j>` stand for numbers. Layouts: "same"; "linear" (ours in x out, theirs out x in); "patch", of any convolution
(ours h x w x in x out, theirs out x in x h x w); "deconv" (ours in x h x w x out, theirs in x out x h x w); "conv1x1"
(ours in x out, theirs out x in x 1 x 1); "token" (ours d, theirs 1 x 1 x d); "positions" (ours n x d, theirs 1 x n x
d).

The tables of a kind of backbone are in `<family>_names.py`.
"""

import functools
import re
from collections.abc import Iterable, Mapping

import numpy as np

from localmim_jax.errors import ConfigError

Rules = Iterable[tuple[str, str, str]]

BLOCK = (  # one transformer block of the release and of timm
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

CONV_NORM = (
    ("conv/kernel", "conv.weight", "patch"),
    ("norm/scale", "bn.weight", "same"),
    ("norm/bias", "bn.bias", "same"),
    ("norm/mean", "bn.running_mean", "same"),
    ("norm/var", "bn.running_var", "same"),
)


def _conv_norm(ours: str, theirs: str) -> tuple[tuple[str, str, str], ...]:
    return tuple((f"{ours}/{a}", f"{theirs}.{b}", layout) for a, b, layout in CONV_NORM)


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
    raise ValueError(f"unknown layout {layout!r}")


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
    raise ValueError(f"unknown layout {layout!r}")


def count(arrays: Mapping[str, np.ndarray], pattern: str) -> int:
    """One more than the highest number, of at most three digits, in the group of `pattern`; 0 without a match."""
    numbers = [int(match[1]) for name in arrays if (match := re.fullmatch(pattern, name)) and len(match[1]) < 4]
    return max(numbers, default=-1) + 1


def rename(origin: str, arrays: Mapping[str, np.ndarray], rules: Rules, whose: str) -> dict[str, np.ndarray]:
    """Our arrays under the names and in the layouts of `rules`; the other arguments are for messages.

    Raises:
        ConfigError: a path that no rule covers.
    """
    rules, renamed, nameless = tuple(rules), {}, []
    for path, array in arrays.items():
        named = release_name(path, rules)
        if named is None:
            nameless.append(path)
        else:
            renamed[named[0]] = np.ascontiguousarray(to_release(array, named[1]))
    if nameless:
        more = f" and {len(nameless) - 6} more" if len(nameless) > 6 else ""
        alone = (
            "" if any(path.startswith("encoder/") for path in nameless) else " the encoder alone (--part=encoder), or"
        )
        raise ConfigError(
            f"{origin}: {whose} has no name for {', '.join(nameless[:6])}{more}; export{alone} with --names=localmim"
        )
    return renamed


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
