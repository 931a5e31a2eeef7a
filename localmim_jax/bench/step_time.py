"""Time the training step of a config on generated images.

    localmim bench step_time --config=configs/fake_data_benchmark.py [--steps=20] [--parts]

The command prints compile time, step time, images/s, FLOP/s and memory. It times the real training step: forward,
backward, optimizer and all metrics. Batches are already on the device, so only the step is timed; `localmim bench
input_speed` times the input pipeline. The step of a detector is timed for landscape and for portrait batches. --parts
also times the parts of a pre-training step. Each part is compiled separately, so the parts do not add up to the step,
which is fused as a whole.
"""

import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from localmim_jax.build import build_task
from localmim_jax.engine import flops
from localmim_jax.engine import mesh as meshes
from localmim_jax.engine.state import StateSpec
from localmim_jax.engine.step import compile_step
from localmim_jax.errors import ConfigError
from localmim_jax.method.localmim import LocalMIMConfig, draw_mask, pretrain_loss
from localmim_jax.method.targets import make_targets
from localmim_jax.params import merge
from localmim_jax.recipes import common_flags
from localmim_jax.tasks.from_config import localmim_config


def define_flags(values: flags.FlagValues) -> None:
    common_flags.define_recipe(values)
    flags.DEFINE_integer("steps", 20, "timed steps, after two warm-up steps", flag_values=values, lower_bound=1)
    flags.DEFINE_bool("parts", False, "also time the parts of a pre-training step", flag_values=values)


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


def measure(spec: StateSpec, batches: list[dict[str, jax.Array]], steps: int) -> dict[str, float | None]:
    """Seconds to compile and of a step (median, fastest, slowest), images/s, FLOP/s and memory.

    Raises:
        FloatingPointError: the loss of the last timed step is not finite.
    """
    program = compile_step(spec, batches[0])
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


def measure_parts(
    spec: StateSpec, config: LocalMIMConfig, batch: dict[str, jax.Array], steps: int
) -> list[tuple[str, float, float]]:
    """(part, median seconds, GFLOP of its matrix products) of a pre-training step."""
    state = spec.create()
    params = state["params"]
    images = batch["image"].astype(jnp.float32) / 128 - 1
    key = jax.random.key(0)

    def model(params: Any):
        return merge(spec.graphdef, params, state["model_state"])

    def loss(params: Any, images: jax.Array, key: jax.Array) -> jax.Array:
        return pretrain_loss(model(params), images, draw_mask(key, config, images.shape[0]))[0]

    mask = jax.jit(lambda key: draw_mask(key, config, images.shape[0]))(key)
    encode = jax.jit(lambda params: model(params).encoder(images, mask=mask, taps=config.taps))
    features = encode(params)
    trained, _ = spec.partition(params)
    parts: dict[str, tuple[Callable[..., Any], tuple]] = {
        "masks": (lambda key: draw_mask(key, config, images.shape[0]), (key,)),
        "targets": (lambda images: make_targets(images, config.target), (images,)),
        "encoder forward": (lambda p: model(p).encoder(images, mask=mask, taps=config.taps), (params,)),
        "decoders forward": (
            lambda p, f: [d(x, mask) for d, x in zip(model(p).decoders, f, strict=True)],
            (params, features),
        ),
        "loss forward": (loss, (params, images, key)),
        "loss and gradient": (jax.value_and_grad(loss), (params, images, key)),
        "optimizer": (
            lambda g, o, p: spec.optimizer.update(g, o, p, jnp.float32(1e-3)),
            (trained, state["opt_state"], trained),
        ),
    }
    return [
        (
            name,
            median_seconds(jax.jit(part), arguments, steps),
            flops.count_flops(jax.make_jaxpr(part)(*arguments)) / 1e9,
        )
        for name, (part, arguments) in parts.items()
    ]


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
    if options.parts and config.task != "pretrain":
        raise ConfigError(f"--parts: only a pre-training step is timed in parts, and this task is {config.task}")
    spec, shapes = prepare_shapes(config)
    for batches in shapes:
        height, width = batches[0]["image"].shape[1:3]
        print(
            f"{spec.mesh.size} x {spec.mesh.devices.flat[0].device_kind}, {config.model.variant}, batch "
            f"{config.batch_size}, {height} x {width} px, {config.model.dtype}, {options.steps} steps"
        )
        for name, value in measure(spec, batches, options.steps).items():
            print(f"  {name:24} {'not known' if value is None else f'{value:.4g}'}", flush=True)
    if options.parts:
        print(f"\n  {'part':24} {'seconds':>10} {'GFLOP':>10}")
        for name, seconds, work in measure_parts(spec, localmim_config(config), shapes[0][0], options.steps):
            print(f"  {name:24} {seconds:10.4g} {work:10.4g}")
