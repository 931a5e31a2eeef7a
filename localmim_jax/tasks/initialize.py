"""Parameters from another checkpoint, of this project or of others: what `checkpoint.init_from` names."""

from collections.abc import Callable
from pathlib import Path

from absl import logging
from ml_collections import ConfigDict

from localmim_jax.convert import files, folders
from localmim_jax.convert.load import HEAD, Report, check, transfer
from localmim_jax.convert.recognize import recognize
from localmim_jax.convert.weights import Weights, fold_batch_norm, info_from_json, looks_untrained
from localmim_jax.engine.checkpoints.read import find_checkpoint, load_params
from localmim_jax.errors import ConfigError, DataError, UserError
from localmim_jax.files import read_json
from localmim_jax.models.base import ModelConfig
from localmim_jax.params import Tree, flatten, unflatten
from localmim_jax.tasks.lookup import model_config

CONVERTED = "model.json"  # stands in the place of config.json in what `cli.convert` writes


def initializer(config: ConfigDict, model: ModelConfig) -> Callable[[Tree, Tree], tuple[Tree, Tree]] | None:
    """`Task.init_from` for a config: None for a fresh start.

    It logs a table of what was loaded, resized, kept as drawn and ignored, and raises ConfigError or DataError with
    every problem in one line.
    """
    settings = config.checkpoint
    path, reset_positions = settings.init_from, settings.get("reset_positions", False)
    if path is None:
        if reset_positions:
            raise ConfigError("checkpoint.reset_positions needs checkpoint.init_from, whose positions it resets")
        return None

    def initialize(params: Tree, model_state: Tree) -> tuple[Tree, Tree]:
        weights = read(path, settings.standard_merging)
        params, model_state, report = load_into(weights, params, model_state, model, reset_positions)
        logging.info("parameters from %s: %s\n%s", report.origin, report.summary(), report.table())
        check(report)
        return params, model_state

    return initialize


def load_into(
    weights: Weights, params: Tree, model_state: Tree, model: ModelConfig, reset_positions: bool = False
) -> tuple[Tree, Tree, Report]:
    """A model's freshly drawn (params, model_state) with everything taken over that belongs there, and what was.

    The statistics of batch norms go with the parameters of dense heads. A classifier's are part of its head by now.
    """
    statistics = flatten(model_state) if model.with_statistics else {}
    filled, report = transfer(
        weights,
        unflatten(flatten(params) | statistics),
        model.describe(),
        model.new_parameters,
        model.position_interpolation,
        reset_positions,
    )
    if "head_order" in weights.assumed and any((row.path, row.status) == (HEAD, "loaded") for row in report.rows):
        logging.warning("%s: %s", weights.origin, weights.assumed["head_order"])
    flat = flatten(filled)
    if statistics:
        model_state = unflatten({path: flat.pop(path) for path in statistics})
    return unflatten(flat), model_state, report


def read(path: str, standard_merging: bool | None = None) -> Weights:
    """The weights in a run directory, in one of its checkpoints, or in a file (see `convert.files` and `recognize`).

    Of a run, the newest checkpoint that verifies is read, and the moving average of its parameters where it has one.

    Raises:
        DataError, ConfigError, StorageError: it cannot be read, or is no model known here; says why.
    """
    weights = _read(files.local_path(path), standard_merging)
    if looks_untrained(weights):
        logging.warning("%s looks untrained: every norm of its encoder still has its initial value", path)
    if "merging" in weights.assumed:
        logging.warning("%s: %s", path, weights.assumed["merging"])
    return weights


def _read(place: Path, standard_merging: bool | None) -> Weights:
    if not place.is_dir():
        arrays, extra = files.read(place)
        if "info" not in extra and place.name in folders.WEIGHTS and (config := folders.config_of(place.parent)):
            extra["config"] = config
        return recognize(arrays, extra, str(place), standard_merging)
    if (config := folders.config_of(place)) is not None:
        return recognize(*folders.read(place, config), str(place), standard_merging)
    if (place / CONVERTED).is_file():
        info = info_from_json(_text(place / CONVERTED), str(place))
        return Weights(flatten(load_params(place)), info, str(place))
    model = model_config(run_config(place))
    step = find_checkpoint(place)
    arrays = flatten(load_params(step)) | flatten(load_params(step, "ema"))
    arrays = {f"encoder/{path}": array for path, array in model.encoder.fixed_parameters().items()} | arrays
    statistics = flatten(load_params(step, "model_state"))
    if model.with_statistics:
        arrays |= statistics
    if "batch_norm/mean" in statistics:
        arrays = fold_batch_norm(arrays, statistics["batch_norm/mean"], statistics["batch_norm/var"])
    return Weights(arrays, model.describe(), str(place))


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read ({error}): convert the weights again") from error


def run_config(place: Path) -> ConfigDict:
    """The config of the run that a directory is, or belongs to.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    file = run_directory(place) / "config.json"
    try:
        config = ConfigDict(read_json(file))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{file} is damaged ({error}): the model is unknown") from error
    if "task" not in config:
        raise DataError(f"{file} is not the config of a run (it names no task); give a run directory or a file")
    try:
        model_config(config)
    except UserError:
        pass  # a model that is not possible here is explained where it is made
    except Exception as error:  # whatever a key that is missing or of another type makes Python raise
        raise DataError(f"{file} is damaged ({error}): the model is unknown") from error
    return config


def run_directory(place: Path) -> Path:
    """The directory of the run that a directory is, or belongs to. Raises DataError: there is none."""
    for directory in (place, *place.parents[:2]):
        if (directory / "config.json").is_file():
            return directory
    if not place.exists():
        raise DataError(f"{place} does not exist: give a run directory or a file")
    if place.is_file():
        raise DataError(f"{place} is a file that does not belong to a run, so its model is unknown: give --config too")
    raise DataError(
        f"{place} does not belong to a run: there is no config.json in it or above it; give a run directory or a file"
    )
