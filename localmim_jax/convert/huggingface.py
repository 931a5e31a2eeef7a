"""Models in the layout of Hugging Face Transformers' ViT and Swin: a directory that their `from_pretrained` reads.

The names of the arrays are those of the files on its hub, which versions 4 and 5 both read.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from localmim_jax.convert import files, names
from localmim_jax.convert.export import with_final_norm, with_last_norm
from localmim_jax.convert.folders import Pixels
from localmim_jax.convert.naming import naming_of
from localmim_jax.convert.transformers_names import HEAD, apart
from localmim_jax.convert.weights import Weights
from localmim_jax.errors import ConfigError
from localmim_jax.models.info import ModelInfo

EPSILON = 1e-6  # of our norms; see docs/weights.md for the few where Transformers has another one built in
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of every file by others read here


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
    if info.num_heads is None:
        raise ConfigError(f"{origin} does not give its number of attention heads, which Transformers needs")
    model = naming_of(info.family).transformers(weights)
    weights, plain = with_final_norm(weights)
    arrays = weights.arrays
    config, rules = _shared_config(info, arrays, model.name) | model.settings, model.rules
    if info.kind == "classifier":
        rules = [*((ours, f"{model.name.lower()}.{theirs}", layout) for ours, theirs, layout in rules), *HEAD]
        labels = [f"class_{i}" for i in range(len(arrays["head/bias"]))]
        config |= {"id2label": {f"{i}": label for i, label in enumerate(labels)}}
        config |= {"label2id": {label: i for i, label in enumerate(labels)}}
    return apart(names.rename(origin, arrays, rules, f"Transformers' {model.name}")), config, plain


def write(
    directory: Path, arrays: Mapping[str, np.ndarray], config: Mapping[str, Any], pixels: Pixels | None
) -> list[Path]:
    """`model.safetensors`, `config.json` and, where `pixels` are known, `preprocessor_config.json`.

    Raises:
        ConfigError: the directory has something in it.
        StorageError: it cannot be written.
    """
    texts = {"config.json": dict(config)}
    if pixels is not None:
        texts["preprocessor_config.json"] = _preprocessor(pixels, config["image_size"])
    return files.write_model_directory(directory, arrays, texts)


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
        "layer_norm_eps": EPSILON if info.epsilon is None else info.epsilon,
    }


def _preprocessor(pixels: Pixels, image_size: int | list[int]) -> dict[str, Any]:
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    tall, wide = (round(side * pixels.resize / min(height, width)) for side in (height, width))
    return {
        "image_processor_type": "BitImageProcessor",  # short side, then center crop; ViT's own squeezes to a square
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": pixels.resize} if not pixels.squash else {"height": tall, "width": wide},
        "resample": int(Image.Resampling[pixels.interpolation.upper()]),
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(pixels.mean),
        "image_std": list(pixels.std),
    }
