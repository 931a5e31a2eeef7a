"""A config as it can be built without its data, and the arrays that its steps would take."""

import copy
import dataclasses
import itertools

import jax
from ml_collections import ConfigDict

from localmim_jax.build import build_task
from localmim_jax.convert import files
from localmim_jax.data.sources import is_there
from localmim_jax.engine import mesh as meshes
from localmim_jax.engine.settings import RunSettings
from localmim_jax.engine.state import StateSpec
from localmim_jax.engine.task import Task
from localmim_jax.errors import DataError

Example = dict[str, jax.ShapeDtypeStruct]


@dataclasses.dataclass(frozen=True)
class Built:
    """A config's task, with `examples` that tells its data, and notes on what the run will miss."""

    config: ConfigDict
    task: Task
    settings: RunSettings
    examples: str
    notes: tuple[str, ...]


def build(config: ConfigDict) -> Built:
    """The task of a config whose data or pre-training may not exist yet.

    A dataset that cannot be opened is only noted, and `data.fake_examples` stands in for its size. So is a pre-training
    that does not exist yet.

    Raises:
        ConfigError: a config that could not run on these devices.
        DataError: the dataset is here, and the config could not run on it.
    """
    config, notes = with_start(config)
    built = _built(config)
    return dataclasses.replace(built, notes=(*notes, *built.notes))


def _built(config: ConfigDict) -> Built:
    """On the real data where they are here; else with notes on what is assumed of them."""
    try:
        task, settings = build_task(config, workdir="")
    except DataError as error:
        if not is_there(config.data.name, config.data.data_dir):
            task, settings = build_task(on_fake_data(config), workdir="")
            examples = f"{config.data.fake_examples} examples assumed (data.fake_examples)"
            classes = config.model.get("num_classes")
            assumed = f"{config.data.name} is not here: assumed are {config.data.fake_examples} examples " + (
                f"(data.fake_examples) and {classes} classes (model.num_classes)" if classes else "(data.fake_examples)"
            )
            return Built(config, task, settings, examples, (str(error), assumed))
        knn = config.eval.get("knn")
        if knn is None or not knn.enabled or is_there(knn.name, config.data.data_dir):
            raise
        config = copy.deepcopy(config)
        config.eval.knn.enabled = False
        built = _built(config)
        return dataclasses.replace(built, notes=(f"eval.knn: {error}", *built.notes))
    examples = f"{round(task.steps_per_epoch * task.batch_size)} examples of {config.data.name}"
    return Built(config, task, settings, examples, ())


def with_start(config: ConfigDict) -> tuple[ConfigDict, list[str]]:
    """The config with some `checkpoint.init_from` if its task needs one, and notes on what the run will miss."""
    start = config.checkpoint.init_from
    if start is None and config.task == "linear_probe":
        config = copy.deepcopy(config)
        config.checkpoint.init_from = "later"
        return config, [
            "checkpoint.init_from is not set: the run needs a pre-trained encoder, a run directory or a file"
        ]
    if start is not None and "://" not in start and not files.local_path(start).exists():
        return config, [f"checkpoint.init_from: {start} does not exist yet, and the run needs it"]
    return config, []


def on_fake_data(config: ConfigDict) -> ConfigDict:
    """A copy that reads no dataset at all."""
    config = copy.deepcopy(config)
    config.data.name = "fake"
    if config.task in ("finetune", "linear_probe"):
        with config.unlocked():
            config.data.fake_classes = config.model.num_classes
    if "knn" in config.eval:
        config.eval.knn.enabled = False
    return config


def batch_shapes(config: ConfigDict) -> list[Example]:
    """The arrays of one training example that go to the device, for each shape that batches have."""
    small = on_fake_data(config)
    small.update({"batch_size": 8 * jax.process_count(), "accum_steps": 1})
    if small.model.get("num_masks") is not None:
        small.model.num_masks = 1  # the real number may not fit so small a batch, and no shape depends on it either
    task, _ = build_task(small, workdir="")
    batches = itertools.islice(task.train_batches(0), 3 if config.task == "detect" else 1)  # landscape and portrait
    found = [
        {
            name: jax.ShapeDtypeStruct(array.shape[1:], jax.dtypes.canonicalize_dtype(array.dtype))
            for name, array in batch.items()
            if name != "id"
        }
        for batch in batches
    ]
    return list({example["image"].shape: example for example in found}.values())


def abstract_batch(spec: StateSpec, example: Example, size: int) -> Example:
    """The shapes, dtypes and shardings of a batch of `size` such examples."""
    sharding = meshes.batch_sharding(spec.mesh)
    return {
        name: jax.ShapeDtypeStruct((size, *array.shape), array.dtype, sharding=sharding)
        for name, array in example.items()
    }
