"""Models in the layout of Hugging Face Transformers' ViT and Swin: a directory that their `from_pretrained` reads.

The names of the arrays are those of the files on its hub, which versions 4 and 5 both read.
"""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from localmim_jax.convert import files, interpolate, names
from localmim_jax.convert.export import rename, with_last_norm
from localmim_jax.convert.weights import Weights
from localmim_jax.errors import ConfigError
from localmim_jax.models.info import ModelInfo

EPSILON = 1e-6  # of our norms; see docs/weights.md for the few where Transformers has another one built in
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of every file by others read here
_BICUBIC = 3  # Pillow's number

_BLOCK = (
    ("norm1/scale", "layernorm_before.weight", "same"),
    ("norm1/bias", "layernorm_before.bias", "same"),
    *(
        (f"attention/{part}/{ours}", f"attention.<self>.{part}.{theirs}", layout)
        for part in ("query", "key", "value")
        for ours, theirs, layout in (("kernel", "weight", "linear"), ("bias", "bias", "same"))
    ),
    ("attention/proj/kernel", "attention.output.dense.weight", "linear"),
    ("attention/proj/bias", "attention.output.dense.bias", "same"),
    ("norm2/scale", "layernorm_after.weight", "same"),
    ("norm2/bias", "layernorm_after.bias", "same"),
    ("mlp/fc1/kernel", "intermediate.dense.weight", "linear"),
    ("mlp/fc1/bias", "intermediate.dense.bias", "same"),
    ("mlp/fc2/kernel", "output.dense.weight", "linear"),
    ("mlp/fc2/bias", "output.dense.bias", "same"),
)

_AROUND = (
    ("encoder/patch_embed/kernel", "embeddings.patch_embeddings.projection.weight", "patch"),
    ("encoder/patch_embed/bias", "embeddings.patch_embeddings.projection.bias", "same"),
    ("norm/scale", "layernorm.weight", "same"),
    ("norm/bias", "layernorm.bias", "same"),
)

VIT = (
    *_AROUND,
    ("encoder/class_token", "embeddings.cls_token", "token"),
    ("encoder/position_embedding", "embeddings.position_embeddings", "positions"),
    *(
        (f"encoder/blocks/<i>/{ours}", f"encoder.layer.<i>.{theirs.replace('<self>', 'attention')}", layout)
        for ours, theirs, layout in _BLOCK
    ),
)

SWIN = (
    *_AROUND,
    ("encoder/patch_norm/scale", "embeddings.norm.weight", "same"),
    ("encoder/patch_norm/bias", "embeddings.norm.bias", "same"),
    *(
        (
            f"encoder/stages/<i>/blocks/<j>/{ours}",
            f"encoder.layers.<i>.blocks.<j>.{theirs.replace('<self>', 'self')}",
            layout,
        )
        for ours, theirs, layout in (
            *_BLOCK,
            ("attention/relative_position_bias", "attention.<self>.relative_position_bias_table", "same"),
        )
    ),
    ("encoder/stages/<i>/merging/norm/scale", "encoder.layers.<i>.downsample.norm.weight", "same"),
    ("encoder/stages/<i>/merging/norm/bias", "encoder.layers.<i>.downsample.norm.bias", "same"),
    ("encoder/stages/<i>/merging/reduction/kernel", "encoder.layers.<i>.downsample.reduction.weight", "linear"),
)

_HEAD = (("head/kernel", "classifier.weight", "linear"), ("head/bias", "classifier.bias", "same"))


@dataclasses.dataclass(frozen=True)
class Pixels:
    """How images become the model's input, as in evaluation: what the preprocessor's config says.

    Attributes:
        mean, std: of RGB pixels in 0..1.
        resize: short side in pixels before the center crop to the model's image size.
    """

    mean: Sequence[float]
    std: Sequence[float]
    resize: int


def export(weights: Weights) -> tuple[dict[str, np.ndarray], dict[str, Any], bool]:
    """A model under Transformers' names.

    A pre-training model leaves its decoders behind and keeps the norm of its last layer, as for timm. An encoder that
    has no norm after it gets one without scale and bias, since Transformers' models end in one.

    Returns:
        (name -> array, what `config.json` holds, whether the last norm is such a plain one).

    Raises:
        ConfigError: the model cannot be expressed there; says why.
    """
    if weights.info.kind == "pretrain":
        weights = with_last_norm(weights)
    info, origin = weights.info, weights.origin
    if info.kind == "detector":
        raise ConfigError(f"{origin}: Transformers has no such detector; export the encoder alone (--part=encoder)")
    if info.kind == "classifier":
        _check_head(weights)
    if info.num_heads is None:
        raise ConfigError(f"{origin} does not tell its attention heads, which Transformers needs")
    arrays = _split_qkv(weights.arrays)
    width = arrays[_last_block_norm(arrays)].shape[0]
    plain = "norm/scale" not in arrays
    if plain:
        arrays |= {"norm/scale": np.ones(width, np.float32), "norm/bias": np.zeros(width, np.float32)}
    config = _vit_config(info, arrays) if info.family == "vit" else _swin_config(info, arrays, origin)
    rules: names.Rules = VIT if info.family == "vit" else SWIN
    if info.kind == "classifier":
        rules = [*((ours, f"{info.family}.{theirs}", layout) for ours, theirs, layout in rules), *_HEAD]
        labels = [f"class_{i}" for i in range(len(arrays["head/bias"]))]
        config |= {"id2label": {f"{i}": label for i, label in enumerate(labels)}}
        config |= {"label2id": {label: i for i, label in enumerate(labels)}}
    return rename(origin, arrays, rules, f"Transformers' {'ViT' if info.family == 'vit' else 'Swin'}"), config, plain


def write(
    directory: Path, arrays: Mapping[str, np.ndarray], config: Mapping[str, Any], pixels: Pixels | None
) -> list[Path]:
    """`model.safetensors`, `config.json` and, where `pixels` are known, `preprocessor_config.json`.

    Raises:
        ConfigError: the directory has something in it.
        StorageError: it cannot be written.
    """
    files.check_empty(directory)
    texts = {"config.json": dict(config)}
    if pixels is not None:
        texts["preprocessor_config.json"] = _preprocessor(pixels, config["image_size"])
    with files.whole(directory / "model.safetensors") as path:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path, {"format": "pt"})
    for name, content in texts.items():
        with files.whole(directory / name) as path:
            path.write_text(json.dumps(content, indent=2) + "\n")
    return [directory / name for name in ("model.safetensors", *texts)]


def _check_head(weights: Weights) -> None:
    info = weights.info
    if info.family == "vit" and info.pool != "class":
        raise ConfigError(
            f"{weights.origin}: its head reads the mean of the patch tokens (model.pool='mean'), where Transformers' "
            "ViT reads the class token: the same weights would give other logits there. Export the encoder alone "
            "(--part=encoder), or fine-tune with model.pool=class"
        )
    if info.family == "swin" and info.head_order != "norm_pool":
        raise ConfigError(
            f"{weights.origin}: its head pools before the norm (head_order='pool_norm'), where Transformers' Swin "
            "normalizes first: the same weights would give other logits there. Export the encoder alone "
            "(--part=encoder), or fine-tune with model.head_order=norm_pool"
        )


def _split_qkv(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    split = {}
    for path, array in arrays.items():
        if "attention/qkv/" not in path:
            split[path] = array
            continue
        for part, values in zip(("query", "key", "value"), np.split(array, 3, axis=-1), strict=True):
            split[path.replace("attention/qkv/", f"attention/{part}/")] = values
    return split


def _last_block_norm(arrays: Mapping[str, np.ndarray]) -> str:
    norms = [path for path in arrays if re.fullmatch(r"encoder/(blocks|stages/\d+/blocks)/\d+/norm2/scale", path)]
    return max(norms, key=lambda path: [int(number) for number in re.findall(r"/(\d+)", path)])


def _shared_config(info: ModelInfo, arrays: Mapping[str, np.ndarray], model: str) -> dict[str, Any]:
    patch, _, channels, _ = arrays["encoder/patch_embed/kernel"].shape
    size = info.image_size or (224, 224)  # a Swin works at any size
    return {
        "architectures": [f"{model}ForImageClassification" if info.kind == "classifier" else f"{model}Model"],
        "model_type": model.lower(),
        "dtype": "float32",
        "image_size": size[0] if size[0] == size[1] else list(size),
        "patch_size": patch,
        "num_channels": channels,
        "hidden_act": "gelu",
        "qkv_bias": True,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": EPSILON,
    }


def _vit_config(info: ModelInfo, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    width, hidden = arrays["encoder/blocks/0/mlp/fc1/kernel"].shape
    (heads,) = info.num_heads or ()
    return _shared_config(info, arrays, "ViT") | {
        "hidden_size": width,
        "num_hidden_layers": len({path.split("/")[2] for path in arrays if path.startswith("encoder/blocks/")}),
        "num_attention_heads": heads,
        "intermediate_size": hidden,
        "encoder_stride": arrays["encoder/patch_embed/kernel"].shape[0],
    }


def _swin_config(info: ModelInfo, arrays: Mapping[str, np.ndarray], origin: str) -> dict[str, Any]:
    blocks = {
        tuple(map(int, m.groups())) for path in arrays if (m := re.match(r"encoder/stages/(\d+)/blocks/(\d+)/", path))
    }
    depths = [sum(stage == i for stage, _ in blocks) for i in range(1 + max(stage for stage, _ in blocks))]
    windows = {
        interpolate.window_of(len(array)) for path, array in arrays.items() if path.endswith("relative_position_bias")
    }
    if len(windows) != 1 or None in windows:
        raise ConfigError(
            f"{origin} has windows of {sorted(map(str, windows))} tokens a side in different stages, where "
            "Transformers' Swin has one size: fine-tune at an image size whose last grid is as large as the window"
        )
    width, hidden = arrays["encoder/stages/0/blocks/0/mlp/fc1/kernel"].shape
    return _shared_config(info, arrays, "Swin") | {
        "embed_dim": width,
        "depths": depths,
        "num_heads": list(info.num_heads or ()),
        "window_size": windows.pop(),
        "mlp_ratio": hidden / width,
        "use_absolute_embeddings": False,
        "drop_path_rate": 0.0,
    }


def _preprocessor(pixels: Pixels, image_size: int | list[int]) -> dict[str, Any]:
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    return {
        "image_processor_type": "BitImageProcessor",  # short side, then center crop; ViT's own squeezes to a square
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": pixels.resize},
        "resample": _BICUBIC,
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(pixels.mean),
        "image_std": list(pixels.std),
    }
