"""Measure what processing only visible tokens saves a Swin.

    localmim bench sparse_swin --config=configs/swin_b_hog_100ep.py --config.batch_size=16 [--rounds=7]
        [--only=stages,encoder,masks] [--config.a.b=v]

Three things are compared: the attention of each stage, packed and plain; the training step with the sparse and the
dense encoder; and the cost of more masks. Each comparison alternates its candidates in one process and prints ratios
of medians, which are reliable on a noisy machine. Steps are the real ones: forward, backward, AdamW. "encoder" steps
have no head; their loss is the mean square of the last stage. Memory is reported by XLA for the compiled program.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from flax import nnx
from ml_collections import ConfigDict

from localmim_jax.bench.peak import matmul_flops
from localmim_jax.engine import mesh as meshes
from localmim_jax.engine.state import StateSpec
from localmim_jax.engine.step import compile_step
from localmim_jax.engine.task import Task
from localmim_jax.errors import ConfigError
from localmim_jax.method.localmim import LocalMIM, LocalMIMConfig, draw_mask, pretrain_loss
from localmim_jax.method.masking import random_mask
from localmim_jax.models.swin import Stage, Swin, SwinConfig
from localmim_jax.models.windows import num_groups, sparse_windows
from localmim_jax.params import initialize, merge, model_state_of, split
from localmim_jax.recipes import common_flags
from localmim_jax.tasks.from_config import localmim_config, run_settings

Candidate = tuple[Callable[[], Any], float | None]  # what to time, and the bytes it needs
PARTS = ("stages", "encoder", "masks")


def define_flags(values: flags.FlagValues) -> None:
    common_flags.define_recipe(values, "a Swin's recipe")
    flags.DEFINE_integer("rounds", 7, "timed rounds, after one warm-up round", flag_values=values, lower_bound=1)
    flags.DEFINE_list("only", list(PARTS), f"comparisons to run: {', '.join(PARTS)}", flag_values=values)


def compare(title: str, candidates: Mapping[str, Candidate], rounds: int, images: int, work: float = 0.0) -> None:
    """Times the candidates in turn and prints each against the last; `work` is the first's FLOPs."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for round_number in range(rounds + 1):
        for name, (function, _) in candidates.items():
            start = time.perf_counter()
            jax.block_until_ready(function())
            if round_number:
                seconds[name].append(time.perf_counter() - start)
    print(f"\n{title}\n  {'':32} {'seconds':>9} {'images/s':>9} {'MiB':>8}  {'speed':>6}")
    *_, last = seconds
    for name, times in seconds.items():
        median, needed = statistics.median(times), candidates[name][1]
        size = "-" if needed is None else f"{needed / 2**20:.0f}"
        ratio = statistics.median(seconds[last]) / median
        print(f"  {name:32} {median:9.4g} {images / median:9.4g} {size:>8}  {ratio:5.2f}x", flush=True)
    if work:
        first = statistics.median(next(iter(seconds.values())))
        print(f"  the first: {work / first / 1e12:.4g} TFLOP/s", flush=True)


def stages(config: LocalMIMConfig, batch: int, rounds: int) -> None:
    """An even and an odd block of every stage, forward and backward, on the visible tokens of a batch."""
    encoder = dataclasses.replace(_swin(config), depths=(2,) * config.encoder.num_layers)
    keep = draw_mask(jax.random.key(0), config, batch).keep
    for index in range(encoder.num_layers):
        window, shift = encoder.windows(index)
        side = 2 ** (encoder.num_layers - 1 - index)
        tokens = keep.shape[1] * side**2
        graphdef, _, _ = split(lambda rngs: Stage(encoder, index, rngs=rngs))
        params, _ = initialize(lambda rngs: Stage(encoder, index, rngs=rngs), jax.random.key(1))
        x = jax.random.normal(jax.random.key(2), (batch, tokens, encoder.width * 2**index)).astype(encoder.dtype)

        def loss(params: Any, x: jax.Array, packed: bool) -> jax.Array:
            layouts = [sparse_windows(keep, config.encoder.mask_grid, side, window, s, packed) for s in (0, shift)]
            for block, layout in zip(merge(graphdef, params).blocks, layouts, strict=True):
                x = block(x, layout)
            return jnp.mean(jnp.square(x.astype(jnp.float32)))

        candidates = {}
        for form in ("packed", "plain"):
            function = jax.jit(jax.grad(lambda p, x: loss(p, x, form == "packed"), argnums=(0, 1)))
            compiled = function.lower(params, x).compile()
            candidates[form] = (lambda compiled=compiled: compiled(params, x), _temporary(compiled))
        groups = num_groups(tokens, window)
        compare(
            f"stage {index + 1}: {tokens} tokens, window {window}, {groups} groups of {window**2}",
            candidates,
            rounds,
            batch,
        )


def _swin(model: LocalMIMConfig) -> SwinConfig:
    return cast(SwinConfig, model.encoder)  # `main` has looked


def _temporary(compiled: Any) -> float | None:
    memory = compiled.memory_analysis()
    return None if memory is None else memory.temp_size_in_bytes


def encoder_task(config: LocalMIMConfig, batch: int, dense: bool) -> Task:
    """An encoder without head: its loss is the mean square of the last stage's tokens."""
    taps = (config.encoder.num_layers,)

    def loss(model: Swin, batch: Mapping[str, jax.Array], key: jax.Array):
        images = batch["image"]
        mask = None if dense else draw_mask(key, config, images.shape[0])
        (feature,) = model(images, mask=mask, taps=taps)
        return jnp.mean(jnp.square(feature.astype(jnp.float32))), {}, model_state_of(model)

    return _task(lambda rngs: Swin(_swin(config), rngs=rngs), loss, batch)


def pretrain_task(config: LocalMIMConfig, batch: int) -> Task:
    """The whole pre-training model."""

    def loss(model: LocalMIM, batch: Mapping[str, jax.Array], key: jax.Array):
        images = batch["image"]
        value, metrics = pretrain_loss(model, images, draw_mask(key, config, images.shape[0]))
        return value, metrics, model_state_of(model)

    return _task(lambda rngs: LocalMIM(config, rngs=rngs), loss, batch)


def _task(make_model: Callable[[nnx.Rngs], nnx.Module], loss: Callable, batch: int) -> Task:
    return Task(
        name="benchmark",
        make_model=make_model,
        loss=loss,
        train_batches=lambda first_step: iter(()),
        batch_size=batch,
        num_steps=1000,
        steps_per_epoch=1000.0,
        weight_decay_rules=SwinConfig.weight_decay["pretrain"],
    )


def step_of(task: Task, config: ConfigDict, model: LocalMIMConfig) -> tuple[Candidate, float]:
    """The engine's compiled step of a task, on images that lie on the device; and its FLOPs."""
    spec = StateSpec(task, run_settings(config), meshes.make_mesh(run_settings(config).mesh))
    shape = (task.batch_size, *model.encoder.image_size, model.encoder.in_channels)
    images = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    batch = meshes.place_batch(spec.mesh, {"image": images})
    program = compile_step(spec, batch)
    state = {"now": spec.create()}

    def run() -> Any:
        state["now"], metrics = program.run(state["now"], batch)
        return metrics

    return (run, program.bytes_per_device), program.flops


def encoders(config: ConfigDict, model: LocalMIMConfig, rounds: int) -> None:
    """The encoder alone, sparse and dense; and the whole step with each form of attention."""
    forms: Any = ("plain",) * model.encoder.num_layers
    plain = dataclasses.replace(model, encoder=dataclasses.replace(_swin(model), sparse_attention=forms))
    batch = config.batch_size
    steps = {
        "sparse": encoder_task(model, batch, dense=False),
        "sparse, all plain": encoder_task(plain, batch, dense=False),
        "dense": encoder_task(model, batch, dense=True),
    }
    made = {name: step_of(task, config, model) for name, task in steps.items()}
    candidates = {name: candidate for name, (candidate, _) in made.items()}
    compare("encoder alone, a step", candidates, rounds, batch, made["sparse"][1])
    print(f"  FLOPs of dense over sparse: {made['dense'][1] / made['sparse'][1]:.2f}")
    side = 2048 if jax.default_backend() == "cpu" else 8192
    print(f"  a large matrix product: {matmul_flops(config.model.dtype, side) / 1e12:.4g} TFLOP/s")
    whole = {"pre-training": model, "pre-training, all plain": plain}
    made = {name: step_of(pretrain_task(one, batch), config, one) for name, one in whole.items()}
    candidates = {name: candidate for name, (candidate, _) in made.items()}
    compare("encoder, decoders, targets, loss: a step", candidates, rounds, batch, made["pre-training"][1])


def masks(config: ConfigDict, model: LocalMIMConfig, rounds: int) -> None:
    """What more masks a batch cost: the pre-training step, and drawing and packing alone."""
    batch = config.batch_size
    numbers = sorted({1, min(8, batch), batch}, reverse=True)
    one = [dataclasses.replace(model, num_masks=number) for number in numbers]
    candidates = {
        f"{chosen.num_masks} masks": step_of(pretrain_task(chosen, batch), config, chosen)[0] for chosen in one
    }
    compare("pre-training, a step", candidates, rounds, batch)

    encoder = _swin(model)
    window, shift = encoder.windows(0)

    def pack(number: int) -> Callable[[], Any]:
        def draw(key: jax.Array) -> Any:
            keep = random_mask(key, number, encoder.mask_grid, model.mask_ratio).keep
            side = 2 ** (encoder.num_layers - 1)
            return [sparse_windows(keep, encoder.mask_grid, side, window, s, True) for s in (0, shift)]

        compiled = jax.jit(draw).lower(jax.random.key(0)).compile()
        return lambda: compiled(jax.random.key(0))

    drawn = {f"drawing and packing {number}": (pack(number), None) for number in numbers}
    compare("masks and both layouts of stage 1", drawn, rounds, batch)


def main(options: flags.FlagValues) -> None:
    config = options.config
    config.schedule.warmup_steps = 0
    model = localmim_config(config)
    if model.encoder.family != SwinConfig.family:
        raise ConfigError("this benchmark needs a Swin recipe, such as configs/swin_b_hog_100ep.py")
    if unknown := sorted(set(options.only) - set(PARTS)):
        raise ConfigError(f"--only={unknown[0]}: choose from {', '.join(PARTS)}")
    device = jax.devices()[0].device_kind
    print(
        f"{jax.device_count()} x {device}, {config.model.variant}, window {config.model.window}, batch "
        f"{config.batch_size}, {config.model.num_masks} masks, {config.model.dtype}, {options.rounds} rounds"
    )
    if "stages" in options.only:
        stages(model, config.batch_size, options.rounds)
    if "encoder" in options.only:
        encoders(config, model, options.rounds)
    if "masks" in options.only:
        masks(config, model, options.rounds)
