"""From a ConfigDict to the frozen settings of engine and models. `ConfigDict` goes no further than this room."""

import dataclasses
import math
import zipfile
from typing import Any, Literal, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from localmim_jax.detection.mask_rcnn import MaskRCNNConfig
from localmim_jax.engine import settings as engine
from localmim_jax.errors import ConfigError
from localmim_jax.method.config import LocalMIMConfig
from localmim_jax.method.targets import TargetConfig
from localmim_jax.models import swin, vit
from localmim_jax.models.classifier import ClassifierConfig
from localmim_jax.models.pyramid import dense_encoder
from localmim_jax.segmentation.upernet import SegmenterConfig

T = TypeVar("T")

_HOG_BIAS_FILE = "arrays hog_enc.<k>.conv.bias of 2 values are needed, one a scale, as localmim convert writes them"
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float16": jnp.float16}


def run_settings(config: ConfigDict) -> engine.RunSettings:
    """What the engine is told besides the task."""
    return engine.RunSettings(
        seed=config.seed,
        accum_steps=config.accum_steps,
        dtype=config.model.dtype,
        schedule=fill(engine.ScheduleSettings, config.schedule),
        optimizer=fill(engine.OptimizerSettings, config.optimizer),
        mesh=fill(engine.MeshSettings, config.mesh),
        checkpoint=fill(engine.CheckpointSettings, config.checkpoint),
        log=fill(engine.LogSettings, config.log),
    )


def fill(cls: type[T], section: ConfigDict) -> T:
    """A frozen dataclass from the keys of a config section that bear its fields' names."""
    values = {field.name: section[field.name] for field in dataclasses.fields(cast(Any, cls)) if field.name in section}
    return cls(**values)


def num_steps(config: ConfigDict, num_examples: int) -> tuple[int, float]:
    """(steps of the run, steps per epoch), from `num_steps` where it is set and else from `num_epochs`.

    Raises:
        ConfigError: neither gives at least one step.
    """
    steps_per_epoch = num_examples / config.batch_size
    steps = config.num_steps if config.num_steps is not None else round(config.num_epochs * steps_per_epoch)
    if steps < 1:
        raise ConfigError(
            f"num_epochs={config.num_epochs} of {num_examples} examples in batches of {config.batch_size} is less than "
            "one step: raise num_epochs, set num_steps or lower batch_size"
        )
    return steps, steps_per_epoch


def interval(key: str, epochs: float, steps_per_epoch: float) -> int:
    """Steps between two evaluations that are `epochs` apart; 0 stays 0 (never, or only at the ends).

    Raises:
        ConfigError: it is negative or no number; names the key.
    """
    if not 0 <= epochs < math.inf:
        raise ConfigError(f"{key} is {epochs}: epochs between two evaluations are needed, or 0 for the end alone")
    return max(1, round(epochs * steps_per_epoch)) if epochs else 0


def encoder_config(config: ConfigDict) -> vit.ViTConfig | swin.SwinConfig:
    """The backbone: the variant's sizes, overridden by whatever the config sets.

    Raises:
        ConfigError: an unknown variant or an impossible size.
    """
    model = config.model
    if len(config.image_size) != 2 or min(config.image_size) < 1:
        raise ConfigError(f"image_size is {tuple(config.image_size)}: height and width are needed, as in 224,224")
    variants = vit.VARIANTS | swin.VARIANTS
    if model.variant not in variants:
        raise ConfigError(f"model.variant is {model.variant!r}; it must be one of {', '.join(variants)}")
    if model.dtype not in DTYPES:
        raise ConfigError(f"model.dtype is {model.dtype!r}; it must be one of {', '.join(DTYPES)}")
    is_vit = model.variant in vit.VARIANTS
    if is_vit == ("depths" in model):
        kind, other = ("ViT", "Swin") if is_vit else ("Swin", "ViT")
        raise ConfigError(
            f"model.variant {model.variant!r} is a {kind} in a recipe for a {other}: take a {kind}'s recipe"
        )
    chosen = {
        name: tuple(model[name]) if isinstance(model[name], list | tuple) else model[name]
        for name in ("width", "depth", "depths", "num_heads", "window", "sparse_attention")
        if model.get(name) is not None
    }
    if "depths" in chosen:  # fine-tuning sets no form, which only matters with a mask; it is one a stage
        chosen.setdefault("sparse_attention", ("packed",) * len(chosen["depths"]))
    return (vit.ViTConfig if is_vit else swin.SwinConfig)(
        image_size=tuple(config.image_size),
        patch_size=model.patch_size,
        in_channels=config.data.channels,
        mlp_ratio=model.mlp_ratio,
        drop_path=model.drop_path,
        dtype=DTYPES[model.dtype],
        remat=model.remat,
        attention=_attention(model.attention, model.dtype),
        **(variants[model.variant] | chosen),
    )


def _attention(name: str, dtype: str) -> Literal["xla", "cudnn"]:
    """ "xla" or "cudnn"; "auto" is the fused kernel where this machine's devices have it for the dtype."""
    if name not in ("auto", "xla", "cudnn"):
        raise ConfigError(f"model.attention is {name!r}; it must be one of auto, xla, cudnn")
    device = jax.devices()[0]
    capability = getattr(device, "compute_capability", "") if "NVIDIA" in device.device_kind else ""
    fused = dtype != "float32" and capability != "" and float(capability) >= 8.0
    if name == "cudnn" and not fused:
        raise ConfigError(
            "model.attention=cudnn needs an NVIDIA GPU of compute capability 8.0 or more and a 16-bit model.dtype, but "
            f"here are {device.device_kind} and {dtype}; auto takes cuDNN where it can"
        )
    return "cudnn" if fused and name != "xla" else "xla"


def classifier_config(config: ConfigDict) -> ClassifierConfig:
    """The fine-tuning or probing model: positions are parameters, and Swin has the release's epsilons."""
    encoder = encoder_config(config)
    if isinstance(encoder, vit.ViTConfig):
        encoder = dataclasses.replace(encoder, position="learned")
    else:
        encoder = dataclasses.replace(encoder, epsilon2=1e-5)
    return ClassifierConfig(
        encoder=encoder,
        **{name: config.model[name] for name in ("num_classes", "pool", "head_order", "head_std", "batch_norm")},
    )


def detector_config(config: ConfigDict) -> MaskRCNNConfig:
    """The detector; its encoder is changed to what dense features need."""
    return fill(MaskRCNNConfig, ConfigDict(config.model.to_dict() | {"encoder": dense_encoder(encoder_config(config))}))


def segmenter_config(config: ConfigDict) -> SegmenterConfig:
    """The segmentation model; its encoder is changed to what dense features need."""
    encoder = dense_encoder(encoder_config(config))
    if isinstance(encoder, vit.ViTConfig) and config.model.relative_and_scale:
        encoder = dataclasses.replace(encoder, relative_position_bias=True, layer_scale=True)
    values = {name: tuple(config.model[name] or ()) or None for name in ("taps", "pool_scales")}
    return fill(SegmenterConfig, ConfigDict(config.model.to_dict() | values | {"encoder": encoder}))


def localmim_config(config: ConfigDict) -> LocalMIMConfig:
    """The pre-training model. Where the config leaves taps, cells or decoder width open, the paper's are taken."""
    model, encoder = config.model, encoder_config(config)
    taps = tuple(model.taps) if model.taps is not None else encoder.default_taps
    cells, width = model.target.cells, model.decoder.width
    if cells is None and isinstance(encoder, swin.SwinConfig):
        cells = [encoder.image_size[0] // encoder.feature_grid(tap)[0] for tap in taps]
    elif cells is None:
        quarter = encoder.patch_size // 4
        if len(taps) != 4 or encoder.patch_size % 4:
            raise ConfigError(
                f"model.target.cells is not set, and the paper's four scales do not fit {len(taps)} taps of "
                f"{encoder.patch_size} px patches: set one cell a tap, in pixels"
            )
        cells = (quarter, 2 * quarter, 4 * quarter, 8 * quarter)
    return LocalMIMConfig(
        encoder=encoder,
        taps=taps,
        target=TargetConfig(
            kind=model.target.kind,
            cells=tuple(cells),
            bins=model.target.bins,
            hog_bias=None if model.target.hog_bias is None else read_hog_bias(model.target.hog_bias),
        ),
        decoder_width=width if width is None or isinstance(width, int) else tuple(width),
        decoder_num_heads=model.decoder.num_heads,
        decoder_depth=model.decoder.depth,
        mask_ratio=model.mask_ratio,
        num_masks=model.get("num_masks"),
        fusion=tuple(model.get("fusion") or ()),
    )


def read_hog_bias(path: str) -> tuple[tuple[float, float], ...]:
    """The release's frozen HOG biases from an npz with arrays `hog_enc.<k>.conv.bias`, each [2] (gx, gy).

    Raises:
        ConfigError: the file is missing, no npz, or lacks an array.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            names = sorted(name for name in file.files if name.endswith(".conv.bias"))
            biases = [np.asarray(file[f"hog_enc.{i}.conv.bias"], np.float64) for i in range(len(names))]
    except OSError as error:
        raise ConfigError(f"model.target.hog_bias: {path} cannot be read ({error.strerror or error})") from error
    except (ValueError, zipfile.BadZipFile, AttributeError) as error:
        raise ConfigError(f"model.target.hog_bias: {path} is no npz file: {_HOG_BIAS_FILE}") from error
    except KeyError:
        biases = []
    if not biases or any(bias.shape != (2,) for bias in biases):
        raise ConfigError(f"model.target.hog_bias: {path} does not hold it: {_HOG_BIAS_FILE}")
    return tuple((float(bias[0]), float(bias[1])) for bias in biases)
