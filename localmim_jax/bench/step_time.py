"""Times the real training step of a config on generated images: compile time, step time, images/s, FLOP/s, memory.

    python -m localmim_jax.bench.step_time --config=configs/fake_data_benchmark.py [--steps=20] [--config.a.b=v]

The step is the one that trains: forward, backward, optimiser, all metrics. Batches lie on the device already, so that
nothing but the step is timed; `localmim_jax.bench.input_speed` times the other half.
"""

import statistics
import time

import jax
import numpy as np
from absl import flags

from localmim_jax import tasks
from localmim_jax.commands import cli
from localmim_jax.engine import flops
from localmim_jax.engine import mesh as meshes
from localmim_jax.engine.state import StateSpec
from localmim_jax.engine.step import make_train_step


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("config", None, "recipe; --config.a.b=value changes a key", flag_values=values)
    flags.DEFINE_integer("steps", 20, "timed steps, after two that are not", flag_values=values, lower_bound=1)


def measure(config, steps: int) -> dict[str, float | None]:
    """Seconds to compile, median and quartiles of seconds a step, images/s, FLOP/s and memory of one config.

    Its data becomes "fake"; everything else stays as it is.
    """
    config.data.name = "fake"
    task, settings = tasks.build(config, workdir="")
    mesh = meshes.make_mesh(settings.mesh)
    spec = StateSpec(task, settings, mesh)
    batches = task.train_batches(0)
    placed = [meshes.place_batch(mesh, next(batches)) for _ in range(2)]
    step = make_train_step(spec)
    state = spec.create()

    start = time.perf_counter()
    compiled = step.lower(state, placed[0]).compile()
    compile_seconds = time.perf_counter() - start
    seconds = []
    for i in range(steps + 2):
        start = time.perf_counter()
        state, metrics = compiled(state, placed[i % 2])
        jax.block_until_ready((state, metrics))
        seconds.append(time.perf_counter() - start)
    seconds = seconds[2:]
    if not np.isfinite(float(metrics["loss"])):
        raise FloatingPointError("the loss of the last timed step is not finite")

    median = statistics.median(seconds)
    device = jax.devices()[0]
    need = flops.task_flops(spec, placed[0])
    peak = flops.peak_flops(device.device_kind, settings.dtype)
    memory = compiled.memory_analysis()
    return {
        "compile_seconds": compile_seconds,
        "step_seconds": median,
        "fastest_seconds": min(seconds),
        "slowest_seconds": max(seconds),
        "images_per_second": task.batch_size / median,
        "model_flops_per_image": need / task.batch_size,
        "flops_per_second_per_device": need / median / mesh.size,
        "share_of_peak": None if peak is None else need / median / mesh.size / peak,
        "state_bytes_per_device": float(spec.bytes_per_device()),
        "temporary_bytes_per_device": None if memory is None else float(memory.temp_size_in_bytes),
    }


def main(options: flags.FlagValues) -> None:
    cli.hide_accelerators_from_tensorflow()
    config = options.config
    found = measure(config, options.steps)
    device = jax.devices()[0]
    print(f"{jax.device_count()} x {device.device_kind}, {config.model.variant}, batch {config.batch_size}, ", end="")
    print(f"{config.image_size[0]}x{config.image_size[1]} px, {config.model.dtype}, {options.steps} steps")
    for name, value in found.items():
        print(f"  {name:30} {'not known' if value is None else f'{value:.6g}'}")


if __name__ == "__main__":
    cli.run(main, define_flags, usage=__doc__)
