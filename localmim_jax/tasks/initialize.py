"""Parameters from another checkpoint, of this project or of others: what `checkpoint.init_from` names."""

import json
from collections.abc import Callable
from pathlib import Path

from absl import logging
from ml_collections import ConfigDict

from localmim_jax.convert import files
from localmim_jax.convert.load import Report, check, transfer
from localmim_jax.convert.recognize import recognize
from localmim_jax.convert.weights import POSITIONS, About, Weights, describe, fold_batch_norm, looks_untrained
from localmim_jax.detection.mask_rcnn import MaskRCNNConfig
from localmim_jax.engine.checkpoints.read import find_checkpoint, load_params
from localmim_jax.errors import DataError
from localmim_jax.method.config import LocalMIMConfig
from localmim_jax.models.classifier import ClassifierConfig
from localmim_jax.models.vit import ViTConfig, position_table
from localmim_jax.params import Tree, flatten, unflatten
from localmim_jax.segmentation.upernet import SegmenterConfig
from localmim_jax.tasks import from_config

Model = LocalMIMConfig | ClassifierConfig | MaskRCNNConfig | SegmenterConfig

# What the segmentation ViT has and no pre-trained one: relative position bias and layer scale.
_SEGMENTERS_OWN = (r"encoder/blocks/\d+/attention/relative_position_bias", r"encoder/blocks/\d+/scale[12]")

CONVERTED = "model.json"  # stands in the place of config.json in what `cli.convert` writes


def initializer(config: ConfigDict, model: Model) -> Callable[[Tree, Tree], tuple[Tree, Tree]] | None:
    """`Task.init_from` for a config: None for a fresh start.

    It logs a table of what was loaded, resized, kept as drawn and ignored, and raises ConfigError or DataError with
    every problem in one line.
    """
    path = config.checkpoint.init_from
    if path is None:
        return None

    def initialize(params: Tree, model_state: Tree) -> tuple[Tree, Tree]:
        params, model_state, report = load_into(
            read(path, config.checkpoint.standard_merging), params, model_state, model
        )
        logging.info("parameters from %s: %s\n%s", report.origin, report.summary(), report.table())
        check(report)
        return params, model_state

    return initialize


def load_into(weights: Weights, params: Tree, model_state: Tree, model: Model) -> tuple[Tree, Tree, Report]:
    """A model's freshly drawn (params, model_state) with everything taken over that belongs there, and what was.

    The statistics of batch norms go with the parameters of dense heads. A classifier's are part of its head by now.
    """
    segments = isinstance(model, SegmenterConfig)
    statistics = flatten(model_state) if segments or isinstance(model, MaskRCNNConfig) else {}
    filled, report = transfer(
        weights,
        unflatten(flatten(params) | statistics),
        describe(model),
        _SEGMENTERS_OWN if segments else (),
        "bilinear" if segments else "bicubic",
    )
    flat = flatten(filled)
    if statistics:
        model_state = unflatten({path: flat.pop(path) for path in statistics})
    return unflatten(flat), model_state, report


def read(path: str, standard_merging: bool = False) -> Weights:
    """The weights in a run directory, in one of its checkpoints, or in a file (see `convert.files` and `recognize`).

    Of a run, the newest checkpoint that verifies is read, and the moving average of its parameters where it has one.

    Raises:
        DataError, ConfigError, StorageError: it cannot be read, or is no model known here; says why.
    """
    weights = _read(files.local_path(path), standard_merging)
    if looks_untrained(weights):
        logging.warning("%s looks untrained: every norm of its encoder is exactly as it begins", path)
    return weights


def _read(place: Path, standard_merging: bool) -> Weights:
    if not place.is_dir():
        return recognize(*files.read(place), str(place), standard_merging)
    if (place / CONVERTED).is_file():
        about = About.from_json((place / CONVERTED).read_text(), str(place))
        return Weights(flatten(load_params(place)), about, str(place))
    model = model_config(run_config(place))
    step = find_checkpoint(place)
    arrays = flatten(load_params(step)) | flatten(load_params(step, "ema"))
    if isinstance(model.encoder, ViTConfig):
        arrays.setdefault(POSITIONS, position_table(model.encoder))
    statistics = flatten(load_params(step, "model_state"))
    if isinstance(model, SegmenterConfig | MaskRCNNConfig):
        arrays |= statistics
    if "batch_norm/mean" in statistics:
        arrays = fold_batch_norm(arrays, statistics["batch_norm/mean"], statistics["batch_norm/var"])
    return Weights(arrays, describe(model), str(place))


def run_config(place: Path) -> ConfigDict:
    """The config of the run that a directory is, or belongs to.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    file = run_directory(place) / "config.json"
    try:
        config = ConfigDict(json.loads(file.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{file} is damaged ({type(error).__name__}): the model cannot be told") from error
    if "task" not in config:
        raise DataError(f"{file} is of no run of ours (it names no task); give a run directory or a file")
    return config


def run_directory(place: Path) -> Path:
    """The directory of the run that a directory is, or belongs to. Raises DataError: there is none."""
    for directory in (place, *place.parents[:2]):
        if (directory / "config.json").is_file():
            return directory
    if not place.exists():
        raise DataError(f"{place} does not exist: give a run directory or a file")
    if place.is_file():
        raise DataError(f"{place} is a file that belongs to no run, so it tells no model: give --config too")
    raise DataError(
        f"{place} belongs to no run: there is no config.json in it or above; give a run directory or a file"
    )


def model_config(config: ConfigDict) -> Model:
    """The model of a run's config, whatever its task."""
    if config.task == "segment":
        return from_config.segmenter_config(config)
    if config.task == "detect":
        return from_config.detector_config(config)
    if config.task != "pretrain":
        return from_config.classifier_config(config)
    bias = config.model.target.hog_bias
    if bias is not None and not Path(bias).is_file():
        logging.warning("model.target.hog_bias: %s is gone; no parameter depends on it, but an export lacks it", bias)
        config.model.target.hog_bias = None
    return from_config.localmim_config(config)
