"""`main.py --dry_run`: what a config would run, without running it.

The model is traced, never allocated, so this works for the largest recipe on a laptop and without its dataset.
"""

from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from localmim_jax.engine import flops, memory
from localmim_jax.engine import mesh as meshes
from localmim_jax.engine.progress import warnings_of
from localmim_jax.engine.schedule import make_schedule
from localmim_jax.engine.settings import RunSettings
from localmim_jax.engine.state import StateSpec
from localmim_jax.engine.step import compile_step, make_train_step
from localmim_jax.engine.task import Task
from localmim_jax.params import merge
from localmim_jax.planning import inputs
from localmim_jax.recipes.override import flatten
from localmim_jax.text import columns

_GIB = 2**30


def run(config: ConfigDict) -> None:
    """Prints the resolved config, then everything of `report`."""
    print("\n".join(f"{key} = {value}" for key, value in flatten(config).items()) + "\n")
    print("\n".join(report(config)))


def report(config: ConfigDict) -> list[str]:
    """Lines on data, length, learning rate, parameters, FLOPs and memory.

    A dataset that is not here is only noted, and `data.fake_examples` stands in for its size. So is a pre-training that
    does not exist yet.

    Raises:
        ConfigError: a config that could not run on the devices at hand.
        DataError: the dataset is here, and the config could not run on it.
    """
    built = inputs.build(config)
    task, settings = built.task, built.settings
    spec = StateSpec(task, settings, meshes.make_mesh(settings.mesh))
    settings.check_batch(task.batch_size, spec.mesh.size)
    epochs = f"{task.num_steps / task.steps_per_epoch:.4g} epochs of {task.steps_per_epoch:.6g} steps"
    rows = [("note", note) for note in (*built.notes, *warnings_of(task))]
    rows += [
        ("data", built.examples),
        ("length", f"{task.num_steps} steps of {task.batch_size} examples, {epochs}"),
        ("rate", _learning_rate(task, settings)),
        ("parameters", _parameters(spec)),
    ]
    shapes = inputs.batch_shapes(built.config)
    for example in shapes:
        rows += _cost(spec, example, _shape(example) if len(shapes) > 1 else "")
    return columns(rows).splitlines()


def _shape(example: dict[str, jax.ShapeDtypeStruct]) -> str:
    h, w, *_ = example["image"].shape
    return f"{h} x {w} px: "


def _learning_rate(task: Task, settings: RunSettings) -> str:
    schedule = settings.schedule
    how = "" if schedule.base_lr is None else f" = base_lr {schedule.base_lr:g} x {task.batch_size} / 256"
    warmup = schedule.warmup_epochs * task.steps_per_epoch if schedule.warmup_steps is None else schedule.warmup_steps
    peak = schedule.peak(task.batch_size)
    rate = make_schedule(schedule, task.batch_size, task.num_steps, task.steps_per_epoch)
    end = float(rate(jnp.asarray(task.num_steps)))
    return f"{schedule.kind}, peak {peak:.6g}{how}, warm-up {warmup:.0f} steps, to {end:.6g}"


def _parameters(spec: StateSpec) -> str:
    trained, frozen = spec.partition(spec.abstract_params)
    parts = {name: flops.parameter_count(tree) for name, tree in spec.abstract_params.items()}
    shown = ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in parts.items())
    still = flops.parameter_count(frozen)
    return f"{flops.parameter_count(trained) / 1e6:.2f} M trained, {still / 1e6:.2f} M frozen: {shown}"


def _cost(spec: StateSpec, example: dict[str, jax.ShapeDtypeStruct], which: str) -> list[tuple[str, str]]:
    """FLOPs and memory of a step on examples of one shape, which `which` names where there are several."""
    task, devices = spec.task, spec.mesh.size

    def batch(size: int) -> dict[str, jax.ShapeDtypeStruct]:
        return inputs.abstract_batch(spec, example, size)

    def forward(params: Any, model_state: Any, batch: Any) -> Any:
        return task.loss(merge(spec.graphdef, params, model_state), batch, jax.random.key(0))

    abstract, whole = spec.abstract, batch(task.batch_size)
    step = make_train_step(spec).trace(abstract, whole, spec.seed)
    work = flops.model_flops(step.jaxpr, forward, abstract["params"], abstract["model_state"], whole)

    found = memory.estimate(spec, example)
    kind = spec.mesh.devices.flat[0].device_kind
    needs = (
        f"{which}about {found.total / _GIB:.3g} GiB a device ({devices} x {kind}), {found.images} images at a time: "
        f"{found} (estimated from the traced step; XLA's fusion may need less)"
    )
    rows = [
        ("work", f"{which}{work / task.batch_size / 1e9:.4g} GFLOP per image, forward and backward"),
        ("memory", needs),
    ]
    if jax.default_backend() != "cpu":  # XLA's CPU compiler undoes remat, so its number would mislead
        needed = compile_step(spec, whole).bytes_per_device
        rows += [] if needed is None else [("", f"{needed / _GIB:.3g} GiB by XLA's analysis, compiled")]
    return rows
