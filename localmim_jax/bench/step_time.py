"""Time the training step of a config on generated images.

    localmim bench step_time --config=configs/fake_data_benchmark.py [--steps=20] [--parts]

The command prints compile time, step time, images/s, FLOP/s and memory. It times the real training step: forward,
backward, optimizer and all metrics. Batches are already on the device, so only the step is timed; `localmim bench
input_speed` times the input pipeline. The step of a detector is timed for landscape and for portrait batches. --parts
also profiles the same compiled step and sums the times of its kernels by part of the model (named scopes), forward and
backward, beside the bytes that they move and their FLOPs.
"""

import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from localmim_jax.bench.step_parts import PartTime, measure_parts
from localmim_jax.build import build_task
from localmim_jax.engine import flops
from localmim_jax.engine import mesh as meshes
from localmim_jax.engine.state import StateSpec
from localmim_jax.engine.step import CompiledStep, compile_step
from localmim_jax.recipes import common_flags
from localmim_jax.text import columns

_PROFILED = 5  # steps, at most: a profile has an event for every kernel


def define_flags(values: flags.FlagValues) -> None:
    common_flags.define_recipe(values)
    flags.DEFINE_integer("steps", 20, "timed steps, after two warm-up steps", flag_values=values, lower_bound=1)
    flags.DEFINE_bool("parts", False, "also profile the step by part of the model", flag_values=values)


def prepare(config: ConfigDict) -> tuple[StateSpec, list[dict[str, jax.Array]]]:
    """The state of a config's task and two batches of one shape, of generated images on the devices."""
    spec, shapes = prepare_shapes(config)
    return spec, shapes[0]


def prepare_shapes(config: ConfigDict) -> tuple[StateSpec, list[list[dict[str, jax.Array]]]]:
    """The same with two batches for each shape that the task's batches have."""
    config.data.name = "fake"
    task, settings = build_task(config, workdir="")
    spec = StateSpec(task, settings, meshes.make_mesh(settings.mesh))
    found: dict[tuple[int, ...], list[dict[str, jax.Array]]] = {}
    # A third of the generated images to detect on stand.
    for batch in itertools.islice(task.train_batches(0), 6 if config.task == "detect" else 2):
        found.setdefault(batch["image"].shape, []).append(meshes.place_batch(spec.mesh, batch))
    return spec, [batches[:2] for batches in found.values()]


def measure(
    spec: StateSpec, batches: list[dict[str, jax.Array]], steps: int, program: CompiledStep | None = None
) -> dict[str, float | None]:
    """Seconds to compile and of a step (median, fastest, slowest), images/s, FLOP/s and memory.

    Args:
        program: the step, compiled; None compiles it.

    Raises:
        FloatingPointError: the loss of the last timed step is not finite.
    """
    program = program or compile_step(spec, batches[0])
    state, seconds = spec.create(), []
    for i in range(steps + 2):
        start = time.perf_counter()
        state, metrics = jax.block_until_ready(program.run(state, batches[i % len(batches)]))
        seconds.append(time.perf_counter() - start)
    if not np.isfinite(float(metrics["loss"])):
        raise FloatingPointError("the loss of the last timed step is not finite")
    median, devices = statistics.median(seconds[2:]), spec.mesh.size
    peak = flops.peak_flops(spec.mesh.devices.flat[0].device_kind, spec.settings.dtype)
    return {
        "compile seconds": program.seconds,
        "step seconds (median)": median,
        "step seconds (fastest)": min(seconds[2:]),
        "step seconds (slowest)": max(seconds[2:]),
        "images/s": spec.task.batch_size / median,
        "model GFLOP/image": program.flops / spec.task.batch_size / 1e9,
        "model TFLOP/s/device": program.flops / median / devices / 1e12,
        "share of peak": None if peak is None else program.flops / median / devices / peak,
        "state GiB/device": spec.bytes_per_device() / 2**30,
        "step GiB/device": None if program.bytes_per_device is None else program.bytes_per_device / 2**30,
    }


def median_seconds(function: Callable[..., Any], arguments: tuple, steps: int) -> float:
    """Of so many calls, each waited for, after one that is not timed."""
    jax.block_until_ready(function(*arguments))
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def main(options: flags.FlagValues) -> None:
    config = options.config
    spec, shapes = prepare_shapes(config)
    for batches in shapes:
        height, width = batches[0]["image"].shape[1:3]
        print(
            f"{spec.mesh.size} x {spec.mesh.devices.flat[0].device_kind}, {config.model.variant}, batch "
            f"{config.batch_size}, {height} x {width} px, {config.model.dtype}, {options.steps} steps"
        )
        step = compile_step(spec, batches[0])
        for name, value in measure(spec, batches, options.steps, step).items():
            print(f"  {name:24} {'not known' if value is None else f'{value:.4g}'}", flush=True)
        if options.parts:
            print("\n" + _parts(measure_parts(spec, step, batches, min(options.steps, _PROFILED))), flush=True)


def _parts(parts: list[PartTime]) -> str:
    total = sum(part.seconds for part in parts)
    rows = [["part", "pass", "ms", "share", "kernels", "GB", "GFLOP"]]
    for part in parts:
        which = "backward" if part.backward else "forward"
        counts = [str(part.kernels), f"{part.bytes / 1e9:.4g}", f"{part.flops / 1e9:.4g}"]
        rows.append([part.part, which, f"{1e3 * part.seconds:.4g}", f"{part.seconds / total:.1%}", *counts])
    return columns(rows)
