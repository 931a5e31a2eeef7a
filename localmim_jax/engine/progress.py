"""What a run says about itself on the console: the announcement at its start, and lines of the first process only."""

from typing import Any

import jax
from absl import logging

from localmim_jax.engine.flops import parameter_count
from localmim_jax.engine.metrics import size
from localmim_jax.engine.state import StateSpec
from localmim_jax.engine.task import Task


def log(text: str, *arguments: Any) -> None:
    """One line from the first process, formatted as by `logging.info`."""
    if jax.process_index() == 0:
        logging.info(text, *arguments, stacklevel=2)


def log_warning(text: str, *arguments: Any) -> None:
    """One warning from the first process."""
    if jax.process_index() == 0:
        logging.warning(text, *arguments, stacklevel=2)


def small_dataset(task: Task) -> str:
    """What to do about a training set that is smaller than one batch; "" for a larger one."""
    examples = round(task.steps_per_epoch * task.batch_size)
    if examples >= task.batch_size:
        return ""
    times = task.batch_size / examples
    return (
        f"the training set has {examples} examples, fewer than batch_size={task.batch_size}: every step reads each of "
        f"them about {times:{'.3g' if times < 100 else ',.0f'}} times, and the run is {task.num_steps} steps; set "
        f"batch_size to {examples} or less, or check data.name and data.split"
    )


def warnings_of(task: Task) -> list[str]:
    """What is likely wrong with a run, one line each."""
    return [text for text in (small_dataset(task), *task.warnings) if text]


def announce(spec: StateSpec, first_step: int) -> None:
    """Says what will run: task, devices, parameters, memory, learning rate, first step and notes."""
    task, settings, schedule = spec.task, spec.settings, spec.settings.schedule
    trained, frozen = map(parameter_count, spec.partition(spec.abstract_params))
    device = spec.mesh.devices.flat[0]
    log(
        "%s: %d steps (%.4g epochs) of %d examples on %d x %s in %d process(es), mesh data=%d fsdp=%d, %s",
        task.name,
        task.num_steps,
        task.num_steps / task.steps_per_epoch,
        task.batch_size,
        spec.mesh.size,
        device.device_kind,
        jax.process_count(),
        spec.mesh.shape["data"],
        spec.mesh.shape["fsdp"],
        settings.dtype,
    )
    log(
        "%s parameters trained, %s frozen; the state takes %s of each device",
        f"{trained:,}",
        f"{frozen:,}",
        size(spec.bytes_per_device()),
    )
    for warning in warnings_of(task):
        log_warning("%s", warning)
    peak = schedule.peak(task.batch_size)
    how = "peak_lr" if schedule.base_lr is None else f"base_lr {schedule.base_lr:g} x batch {task.batch_size} / 256"
    log("learning rate: %s, peak %.4g (%s)", schedule.kind, peak, how)
    log("resuming from step %d" if first_step else "starting at step %d", first_step)
    if settings.log.notes:
        log("notes: %s", settings.log.notes)
