"""What the analyses share: which checkpoint of a run is looked at, its model, images, flags, and remembered results."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from localmim_jax.api import load
from localmim_jax.engine.checkpoints.read import complete_steps, find_checkpoint
from localmim_jax.errors import ConfigError, StorageError
from localmim_jax.files import read_json, write_json
from localmim_jax.recipes import common_flags
from localmim_jax.tasks import initialize, inputs, lookup

Values = dict[str, np.ndarray]  # one number a layer, by name
Series = dict[str, list[Values]]  # of every run, by the name under which it is drawn; equal names are averaged


def define_flags(values: flags.FlagValues, at: str, output: str) -> None:
    """The flags of an analysis of several runs."""
    common_flags.define_runs(values)
    flags.DEFINE_list(
        "labels", [], "labels of the runs, in order; runs with the same label are averaged", flag_values=values
    )
    flags.DEFINE_string("at", at, "checkpoint to read: last, middle (of the schedule) or a step", flag_values=values)
    flags.DEFINE_string("output", output, "path to write to, without .png, .pdf, .csv", flag_values=values)
    common_flags.define_batch_size(values, 0)
    common_flags.define_data_dir(values, "as in the run")


def collect(options: flags.FlagValues, compute: Callable[[ConfigDict, Path], Values]) -> Series:
    """`compute(config, checkpoint)` for every run of the flags.

    Raises:
        ConfigError: no runs, or another number of labels.
        StorageError, DataError: a run cannot be read, or --output lies in a file.
    """
    common_flags.require(options, runs="runs/first,runs/second")
    labels = options.labels or [Path(run).name for run in options.runs]
    if len(labels) != len(options.runs):
        raise ConfigError(f"--labels has {len(labels)} names for {len(options.runs)} runs: give one per run")
    folder = Path(options.output).expanduser().parent
    if folder.is_file():  # told before anything is computed
        raise StorageError(f"--output={options.output}: {folder} is a file; give another one")
    series: Series = {}
    for label, run in zip(labels, options.runs, strict=True):
        config = initialize.run_config(Path(run).expanduser())
        config.data.data_dir = options.data_dir or config.data.data_dir
        config.batch_size = options.batch_size or config.batch_size
        series.setdefault(label, []).append(compute(config, checkpoint_at(run, options.at)))
    return series


def checkpoint_at(run: str | Path, at: str) -> Path:
    """The directory of the newest checkpoint, of the one nearest to half of it, or of a step.

    "middle" is the middle of what was trained, so of the schedule where the run is finished.

    Raises:
        ConfigError: `at` is none of these, or the run has not kept that step.
        StorageError: there is no good checkpoint.
    """
    newest = find_checkpoint(Path(run).expanduser())
    if at == "last":
        return newest
    if at != "middle" and not at.isdecimal():
        raise ConfigError(f"--at={at}: it must be last, middle or a step")
    steps, wanted = complete_steps(newest.parent), int(newest.name) / 2 if at == "middle" else int(at)
    nearest = min(steps, key=lambda step: abs(step - wanted))
    far = abs(nearest - wanted) > (0.05 * int(newest.name) if at == "middle" else 0)
    if far:
        raise ConfigError(
            f"{run} has kept the checkpoints {', '.join(map(str, steps))}, none {'at' if at != 'middle' else 'near'} "
            f"step {wanted:.0f}: name one with --at, or train with checkpoint.keep_every_steps"
        )
    return find_checkpoint(newest.parent / str(nearest))


def remembered(
    run: Path, name: str, at: str, settings: dict[str, Any], compute: Callable[[Path], Values] | None
) -> Values | None:
    """What `compute(checkpoint)` gave before with these settings, or gives now; kept in the run directory.

    Args:
        run: the run directory.
        name: of the analysis.
        at: as in `checkpoint_at`.
        settings: of the analysis; what was made with others is made anew.
        compute: None computes nothing.

    Returns:
        The values; None where there are none and none were to be computed.
    """
    file = run / "analysis" / f"{name}.json"
    settings = {**settings, "at": at}
    if file.is_file():
        try:
            known: dict[str, Any] = read_json(file)
            if known["settings"] == settings:
                return {key: np.array(values) for key, values in known["values"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass  # damaged: computed again, and written again
    if compute is None:
        return None
    values = compute(checkpoint_at(run, at))
    try:
        file.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise StorageError(f"{file.parent} cannot be made: {error.strerror}") from error
    plain = {key: np.asarray(array, np.float64).tolist() for key, array in values.items()}
    write_json(file, {"settings": settings, "values": plain})
    return values


def model_of(config: ConfigDict, checkpoint: Path) -> tuple[Any, Any, Any]:
    """(graph definition, parameters, model state) of a run's model at a checkpoint, see `api.load`."""
    lookup.require_features(config, str(checkpoint))
    bound = load(checkpoint, config).bound
    return bound.graphdef, bound.params, bound.model_state


def images_of(config: ConfigDict, count: int, split: str = "") -> Iterator[tuple[jax.Array, np.ndarray]]:
    """(normalized images [b, h, w, c], bool [b] which are no padding) of evenly spaced examples, centered, unmasked.

    Raises:
        ConfigError: `count` is below 1.
        DataError: the dataset cannot be read.
    """
    if count < 1:
        raise ConfigError(f"--images={count}: at least 1 is needed")
    data = inputs.data_config(config)
    source, normalize = inputs.open_split(data, split=split), inputs.normalizer(config)
    resize = max(config.image_size) if source.passthrough or min(config.image_size) < 64 else 0
    for batch in inputs.center_crops(data, source, min(config.batch_size, count), resize, count):
        yield normalize(jax.numpy.asarray(batch["image"])), np.asarray(batch["valid"])
