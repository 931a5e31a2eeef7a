"""`train`: runs a config, with optional Python datasets and transforms."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from localmim_jax import process
from localmim_jax.api.loading import own_copy
from localmim_jax.build import build_task, loggers_of
from localmim_jax.data.augment import TrainTransform
from localmim_jax.data.given import image_of
from localmim_jax.data.own import PREFIX, Function, Given, OwnSource, OwnTransform, name_of
from localmim_jax.engine import distributed, loop
from localmim_jax.engine.loggers.base import Logger
from localmim_jax.engine.loop import Summary
from localmim_jax.errors import ConfigError
from localmim_jax.recipes.override import record
from localmim_jax.tasks import finetune, inputs

_SPLITS = ("train", "validation")


def train(
    config: ConfigDict | str,
    workdir: str | os.PathLike[str],
    dataset: Any = None,
    transform: Function | None = None,
    loggers: Sequence[Logger] = (),
) -> Summary:
    """Trains a config in a run directory, or resumes the run there; see docs/api.md.

    Args:
        config: a config, or the name or path of a recipe.
        workdir: the run directory. `load(workdir)` gives the model.
        dataset: the data to read instead of `data.name`: an object with `len` and `[i]`, whose items are images or
            {"image": image, "label": int}, where an image is a uint8 array [h, w, c] or whatever `Model.encode` takes.
            Or {"train": such an object, "validation": another}: fine-tuning needs both; in pre-training, k-NN
            classifies the second with the first as memory bank if both have labels. Labels count from 0.
        transform: (numpy generator, example) -> example, instead of the recipe's crop, flip and RandAugment. It gets a
            uint8 image [h, w, c] and returns one of `config.image_size`. `augmentation(config)` is the recipe's own, to
            be called inside.
        loggers: `Logger` objects in addition to TensorBoard, `metrics.jsonl` and those that the config names.

    The config of the run records the names of dataset and transform. Resuming is exact as long as both are pure: equal
    arguments give equal results.

    Returns:
        The final state, its hash, and the last evaluations.

    Raises:
        ConfigError, DataError: before the first step, or if the data run out.
        Diverged, StorageError: see `engine.loop.run`.
        Preempted, Interrupted: SIGTERM or Ctrl-C came; the state is saved.
    """
    process.set_up()
    distributed.initialize()
    own = own_copy(config)
    given = hand_over(own, dataset, transform)
    own.lock()
    loggers = (*loggers_of(own), *loggers)
    task, settings = build_task(own, os.fspath(workdir), given)
    return loop.run(task, settings, workdir, record(own), loggers)


def augmentation(config: ConfigDict | str) -> Callable[[np.random.Generator, Mapping[str, Any]], dict[str, Any]]:
    """The random crop, flip and RandAugment of a config as a function (numpy generator, example) -> example."""
    own = own_copy(config)
    channels, levels = own.data.channels, inputs.levels(own)
    recipe = finetune.train_transform(own) if "augment" in own else None
    apply = recipe or TrainTransform.of(inputs.data_config(own))

    def augment(rng: np.random.Generator, example: Mapping[str, Any]) -> dict[str, Any]:
        return {**example, **apply({**example, "image": image_of(example["image"], channels), "levels": levels}, rng)}

    return augment


def hand_over(config: ConfigDict, dataset: Any, transform: Function | None) -> Given | None:
    """The dataset and transform for `build_task`; records them in the config. None where there is neither.

    Raises:
        ConfigError, DataError: a dataset that cannot be used, or no function.
    """
    if transform is not None and not callable(transform):
        raise ConfigError(f"transform is a {type(transform).__name__}; a function (rng, example) -> example is needed")
    if dataset is None and transform is None:
        return None
    given = Given()
    if dataset is not None:
        given = _datasets(config, dataset)
    if transform is not None:
        name, size = name_of(transform), tuple(config.image_size)
        config.data.transform = name
        given = Given(given.name, given.sources, OwnTransform(transform, name, size, config.data.channels))
    return given


def _datasets(config: ConfigDict, dataset: Any) -> Given:
    parts = dataset if isinstance(dataset, Mapping) else {"train": dataset}
    if "train" not in parts or not set(parts) <= set(_SPLITS):
        raise ConfigError(
            f'dataset has the splits {", ".join(map(str, parts)) or "none"}; give {{"train": ...}}, and "validation" '
            "where there is one"
        )
    classes = config.model.get("num_classes", 0)
    sources = {
        split: OwnSource(part, f"dataset[{split}]", config.data.channels, classes) for split, part in parts.items()
    }
    # The length too: another number of examples is another dataset, with which resuming would not be exact.
    name = f"{PREFIX}{name_of(parts['train'])}:{len(sources['train'])}"
    before, config.data.name, config.data.split = config.data.name, name, "train"
    if "split" in config.eval:
        config.eval.split = "validation"
    knn = config.eval.get("knn")
    if knn is not None and knn.enabled and knn.name == before:  # k-NN read the run's own dataset, so it reads this one
        knn.enabled = "validation" in sources and all(source.labeled for source in sources.values())
        knn.update({"name": name, "train_split": "train", "test_split": "validation"})
    return Given(name, sources)
