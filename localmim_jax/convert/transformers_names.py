"""What the names of Hugging Face Transformers' ViT and Swin share, in the form of `names`.

They are those of the files on its hub, which versions 4 and 5 both read and write. Queries, keys and values are apart
there, and together under one name here: `joined` and `apart` go between the two.
"""

import re
from collections.abc import Mapping

import numpy as np

_BLOCK = (
    ("norm1/scale", "layernorm_before.weight", "same"),
    ("norm1/bias", "layernorm_before.bias", "same"),
    ("attention/qkv/kernel", "attention.<self>.qkv.weight", "linear"),
    ("attention/qkv/bias", "attention.<self>.qkv.bias", "same"),
    ("attention/proj/kernel", "attention.output.dense.weight", "linear"),
    ("attention/proj/bias", "attention.output.dense.bias", "same"),
    ("norm2/scale", "layernorm_after.weight", "same"),
    ("norm2/bias", "layernorm_after.bias", "same"),
    ("mlp/fc1/kernel", "intermediate.dense.weight", "linear"),
    ("mlp/fc1/bias", "intermediate.dense.bias", "same"),
    ("mlp/fc2/kernel", "output.dense.weight", "linear"),
    ("mlp/fc2/bias", "output.dense.bias", "same"),
)

AROUND = (
    ("encoder/patch_embed/kernel", "embeddings.patch_embeddings.projection.weight", "patch"),
    ("encoder/patch_embed/bias", "embeddings.patch_embeddings.projection.bias", "same"),
    ("norm/scale", "layernorm.weight", "same"),
    ("norm/bias", "layernorm.bias", "same"),
)

HEAD = (("head/kernel", "classifier.weight", "linear"), ("head/bias", "classifier.bias", "same"))

BESIDE = (
    (r"pooler\.dense\.(weight|bias)", "the pooling layer of Transformers, which no image model trains", None),
    (r"embeddings\.mask_token", "the mask token of masked-image pre-training", None),
    (r"decoder\..*", "the decoder of masked-image pre-training", None),
)

_PARTS = ("query", "key", "value")
ANCHOR = "embeddings.patch_embeddings.projection.weight"


def block(ours: str, theirs: str, attention: str) -> tuple[tuple[str, str, str], ...]:
    """The rules of a block under `ours` and `theirs`; `attention` is the name of its self-attention."""
    return tuple((f"{ours}/{a}", f"{theirs}.{b.replace('<self>', attention)}", layout) for a, b, layout in _BLOCK)


def joined(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    """The arrays of a file of Transformers without the model's prefix, its queries, keys and values as one array.

    Where the layers have no bias (`qkv_bias=False`), one of zeros stands for it, which is the same. Parts that do not
    fit each other stay apart, and so without a name here.

    Returns:
        None where these are no names of Transformers.
    """
    anchor = next((name for name in arrays if name.endswith(ANCHOR)), None)
    if anchor is None:
        return None
    prefix = anchor.removesuffix(ANCHOR)
    found = {name.removeprefix(prefix): array for name, array in arrays.items()}
    for name in [name for name in found if ".query.weight" in name]:
        for leaf in ("weight", "bias"):
            stem = name.removesuffix("query.weight")
            parts = [f"{stem}{part}.{leaf}" for part in _PARTS]
            values = [found[part] for part in parts if part in found]
            if len(values) == 3 and len({value.shape for value in values}) == 1:
                found[f"{stem}qkv.{leaf}"] = np.concatenate(values)
                for part in parts:
                    del found[part]
            elif leaf == "bias" and not values and f"{stem}qkv.weight" in found:
                weight = found[f"{stem}qkv.weight"]
                found[f"{stem}qkv.bias"] = np.zeros(len(weight), weight.dtype)
    return found


def apart(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of the joining: `qkv` as queries, keys and values."""
    found = {}
    for name, array in arrays.items():
        match = re.fullmatch(r"(.*\.)qkv\.(weight|bias)", name)
        if match is None:
            found[name] = array
            continue
        for part, values in zip(_PARTS, np.split(array, 3), strict=True):
            found[f"{match[1]}{part}.{match[2]}"] = np.ascontiguousarray(values)
    return found
