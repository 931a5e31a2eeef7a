"""From a ConfigDict to the frozen settings of engine and models. `ConfigDict` goes no further than this room."""

import dataclasses
import math
import zipfile
from typing import Any, Literal, TypeVar, cast

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from localmim_jax.engine import mesh as meshes
from localmim_jax.engine import settings as engine
from localmim_jax.errors import ConfigError
from localmim_jax.method.localmim import LocalMIMConfig
from localmim_jax.method.targets import TargetConfig
from localmim_jax.models.base import EncoderConfig
from localmim_jax.models.classifier import ClassifierConfig
from localmim_jax.models.registry import VARIANTS

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


def encoder_config(config: ConfigDict) -> EncoderConfig:
    """The backbone: the variant's sizes, overridden by whatever the config sets.

    Raises:
        ConfigError: an unknown variant, a variant of another kind than the recipe's, or an impossible size.
    """
    model = config.model
    if len(config.image_size) != 2 or min(config.image_size) < 1:
        raise ConfigError(f"image_size is {tuple(config.image_size)}: give height and width, as in 224,224")
    if model.variant not in VARIANTS:
        raise ConfigError(f"model.variant is {model.variant!r}; it must be one of {', '.join(VARIANTS)}")
    if model.dtype not in DTYPES:
        raise ConfigError(f"model.dtype is {model.dtype!r}; it must be one of {', '.join(DTYPES)}")
    kind, sizes = VARIANTS[model.variant]
    if not set(sizes) <= set(model):
        fitting = [other for other, other_sizes in VARIANTS.values() if set(other_sizes) <= set(model)]
        other = f" in a recipe for a {fitting[0].label}" if fitting else ""
        raise ConfigError(f"model.variant {model.variant!r} is a {kind.label}{other}: take a {kind.label}'s recipe")
    if model.get("num_registers") is not None and not hasattr(kind, "num_registers"):
        raise ConfigError(
            f"model.num_registers is {model.num_registers}, and model.variant {model.variant!r} has no registers: take "
            f"{' or '.join(name for name in VARIANTS if name.startswith('vit_reg'))}"
        )
    make_config = cast(Any, kind)
    values = {
        name: tuple(model[name]) if isinstance(model[name], list | tuple) else model[name]
        for name in {field.name for field in dataclasses.fields(make_config)} & set(model)
        if model[name] is not None
    }
    values |= {"image_size": tuple(config.image_size), "in_channels": config.data.channels}
    values |= {"dtype": DTYPES[model.dtype], "attention": _attention(model.attention, model.dtype)}
    scan = model.get("scan_blocks")  # old runs have no such key
    values["scan_blocks"] = meshes.run_devices()[0].platform == "tpu" if scan is None else scan
    return make_config(**(dict(sizes) | values))


def _attention(name: str, dtype: str) -> Literal["xla", "cudnn"]:
    """ "xla" or "cudnn"; "auto" is the fused kernel where the run's devices have it for the dtype."""
    if name not in ("auto", "xla", "cudnn"):
        raise ConfigError(f"model.attention is {name!r}; it must be one of auto, xla, cudnn")
    device = meshes.run_devices()[0]
    capability = getattr(device, "compute_capability", "") if "NVIDIA" in device.device_kind else ""
    fused = dtype != "float32" and capability != "" and float(capability) >= 8.0
    if name == "cudnn" and not fused:
        raise ConfigError(
            "model.attention=cudnn needs an NVIDIA GPU of compute capability 8.0 or more and a 16-bit model.dtype, but "
            f"here are {device.device_kind} and {dtype}; auto uses cuDNN where possible"
        )
    return "cudnn" if fused and name != "xla" else "xla"


def classifier_config(config: ConfigDict) -> ClassifierConfig:
    """The fine-tuning or probing model."""
    return ClassifierConfig(
        encoder=encoder_config(config).for_classification(),
        **{name: config.model[name] for name in ("num_classes", "pool", "head_order", "head_std", "batch_norm")},
    )


def localmim_config(config: ConfigDict) -> LocalMIMConfig:
    """The pre-training model. Where the config leaves taps, cells or decoder width open, the paper's are taken."""
    model, encoder = config.model, encoder_config(config)
    taps = tuple(model.taps) if model.taps is not None else encoder.default_taps
    cells, width = model.target.cells, model.decoder.width
    if cells is None:
        cells = encoder.default_cells(taps)
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
        raise ConfigError(f"model.target.hog_bias: {path} is not an npz file: {_HOG_BIAS_FILE}") from error
    except KeyError:
        biases = []
    if not biases or any(bias.shape != (2,) for bias in biases):
        raise ConfigError(f"model.target.hog_bias: {path} does not hold it: {_HOG_BIAS_FILE}")
    return tuple((float(bias[0]), float(bias[1])) for bias in biases)
