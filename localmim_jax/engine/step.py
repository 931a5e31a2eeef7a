"""One training step: a pure function (state, batch, seed) -> (state, metrics), compiled once, its state donated."""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from localmim_jax.engine import mesh as meshes
from localmim_jax.engine.flops import model_flops
from localmim_jax.engine.optim import clip_by_norm, global_norm
from localmim_jax.engine.schedule import make_schedule
from localmim_jax.engine.state import StateSpec, join
from localmim_jax.params import Tree, merge

Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]

LOSS_SCALE_GROWTH_INTERVAL = 2000  # good steps after which float16's loss scale doubles, as in torch's GradScaler


def make_train_step(spec: StateSpec) -> jax.stages.Wrapped:
    """The jitted step: (state, batch, seed) -> (state, metrics). The state given to it is donated.

    The seed, `spec.seed`, is an argument and no constant, so that runs which differ in it share one compiled program.
    Metrics are float32 scalars, replicated. Besides the task's own they are: "loss"; "learning_rate"; "norm/gradient"
    (before clipping), "norm/parameters" and "norm/update" of the trained parameters; "skipped" (1 if loss or gradient
    were not finite, so that everything but the step count was left unchanged); "skipped_in_a_row"; "skipped_steps"
    (since the start of the run); under float16 "loss_scale".
    """
    task, settings = spec.task, spec.settings
    optimizer, ema_decay = spec.optimizer, settings.optimizer.ema_decay
    schedule = make_schedule(settings.schedule, task.batch_size, task.num_steps, task.steps_per_epoch)
    settings.check_batch(task.batch_size, spec.mesh.size)
    gradient_shardings, _ = spec.partition(spec.shardings["params"])

    def train_step(state: Tree, batch: Batch, seed: jax.Array) -> tuple[Tree, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), state["step"])
        trained, frozen = spec.partition(state["params"])
        with jax.named_scope("gradients"):
            metrics, model_state, gradients = _gradients(spec, state, trained, frozen, batch, key)
            # Without this each device could hold whole gradients, although it holds only a part of the parameters.
            gradients = jax.lax.with_sharding_constraint(gradients, gradient_shardings)
        with jax.named_scope("finite_check"):
            norm = global_norm(gradients)
            finite_loss = jnp.isfinite(metrics["loss"])
            good = finite_loss & jnp.isfinite(norm)
        if settings.optimizer.clip_norm is not None:
            with jax.named_scope("clipping"):
                gradients = clip_by_norm(gradients, norm, settings.optimizer.clip_norm)
        with jax.named_scope("optimizer"):
            learning_rate = schedule(state["step"])
            updates, opt_state = optimizer.update(gradients, state["opt_state"], trained, learning_rate)
            trained = optax.apply_updates(trained, updates)
        changed = {
            "params": join(trained, frozen),
            "model_state": model_state,
            "opt_state": opt_state,
            "ema": {},
        }
        if ema_decay is not None:
            with jax.named_scope("ema"):
                changed["ema"] = jax.tree.map(lambda e, p: ema_decay * e + (1 - ema_decay) * p, state["ema"], trained)
        with jax.named_scope("finite_check"):
            unchanged = {name: state[name] for name in changed}
            new_state = jax.tree.map(lambda new, old: jnp.where(good, new, old), changed, unchanged)
            # Without the barrier their norm is computed from the old ones and the updates, for which XLA keeps a copy.
            new_state["params"] = jax.lax.optimization_barrier(new_state["params"])
            new_state |= _counters(state, good, finite_loss)
        with jax.named_scope("metrics"):
            reported = {
                **metrics,
                "learning_rate": learning_rate,
                "norm/gradient": norm,
                "norm/parameters": global_norm(spec.partition(new_state["params"])[0]),
                "norm/update": global_norm(updates),
                "skipped": ~good,
                "skipped_in_a_row": new_state["bad_steps"]["in_a_row"],
                "skipped_steps": new_state["bad_steps"]["total"],
            }
            if "loss_scale" in state:
                reported["loss_scale"] = state["loss_scale"]["scale"]
            return new_state, {name: jnp.asarray(value, jnp.float32) for name, value in reported.items()}

    return jax.jit(train_step, donate_argnums=0, out_shardings=(spec.shardings, meshes.replicated(spec.mesh)))


def _gradients(
    spec: StateSpec, state: Tree, trained: Tree, frozen: Tree, batch: Batch, key: jax.Array
) -> tuple[Metrics, Tree, Tree]:
    """(metrics with the "loss", model_state, gradients) of a batch, averaged over its micro-batches.

    Example i belongs to micro-batch i mod accum_steps, so that each device splits its own examples and none moves. The
    model state passes through the micro-batches in turn. Under float16 the loss is scaled for its gradient.
    """
    scale = state["loss_scale"]["scale"] if "loss_scale" in state else 1.0

    def scaled_loss(trained: Tree, model_state: Tree, batch: Batch, key: jax.Array):
        params = meshes.whole(join(trained, frozen), spec.shardings["params"])
        model = merge(spec.graphdef, params, model_state)
        loss, metrics, model_state = spec.task.loss(model, batch, key)
        return loss * scale, ({"loss": loss, **metrics}, model_state)

    def micro_gradients(model_state: Tree, index: jax.Array, batch: Batch) -> tuple[Metrics, Tree, Tree]:
        micro_key = jax.random.fold_in(key, index)
        gradients, aux = jax.grad(scaled_loss, has_aux=True)(trained, model_state, batch, micro_key)
        return *aux, gradients

    count = spec.settings.accum_steps
    if count == 1:
        metrics, model_state, gradients = micro_gradients(state["model_state"], jnp.int32(0), batch)
    else:
        split_over_devices = NamedSharding(spec.mesh, P(None, meshes.BATCH_AXES))

        def split(array: jax.Array) -> jax.Array:
            array = array.reshape(array.shape[0] // count, count, *array.shape[1:]).swapaxes(0, 1)
            return jax.lax.with_sharding_constraint(array, split_over_devices)

        def micro_step(carry: tuple[Tree, Tree], inputs: tuple[jax.Array, Batch]):
            metrics, model_state, gradients = micro_gradients(carry[0], *inputs)
            return (model_state, jax.tree.map(jnp.add, carry[1], gradients)), metrics

        start = state["model_state"], jax.tree.map(jnp.zeros_like, trained)
        inputs = jnp.arange(count), {name: split(array) for name, array in batch.items()}
        (model_state, gradients), metrics = jax.lax.scan(micro_step, start, inputs)
        metrics = {name: jnp.mean(values) for name, values in metrics.items()}
    return metrics, model_state, jax.tree.map(lambda g: g / (count * scale), gradients)


def _counters(state: Tree, good: jax.Array, finite_loss: jax.Array) -> Tree:
    """The step count, the skipped steps and float16's loss scale after a step.

    With float16, gradients overflow with a finite loss until the loss scale is small enough. Such a step is skipped and
    counted in the total, but not among the steps in a row that end a diverged run.
    """
    bad_steps, excused = state["bad_steps"], jnp.zeros((), bool)
    new = {"step": state["step"] + 1}
    if "loss_scale" in state:
        scale, good_steps = state["loss_scale"]["scale"], state["loss_scale"]["good_steps"] + 1
        excused = ~good & finite_loss & (scale > 1.0)
        grow = good & (good_steps == LOSS_SCALE_GROWTH_INTERVAL)
        new["loss_scale"] = {
            "scale": jnp.where(good, jnp.where(grow, scale * 2.0, scale), jnp.maximum(scale / 2.0, 1.0)),
            "good_steps": jnp.where(grow | ~good, 0, good_steps),
        }
    in_a_row = jnp.where(excused, bad_steps["in_a_row"], bad_steps["in_a_row"] + 1)
    new["bad_steps"] = {
        "total": bad_steps["total"] + jnp.where(good, 0, 1),
        "in_a_row": jnp.where(good, 0, in_a_row),
    }
    return new


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """A step compiled ahead of its first use.

    Attributes:
        compiled: (state, batch, seed) -> (state, metrics), see `make_train_step`; `as_text()` is XLA's program.
        seed: of the run.
        seconds: time to trace and compile, or to read the compilation cache.
        flops: FLOPs of the model per step for the global batch, see `engine.flops`.
        bytes_per_device: peak memory while it runs, including state and batch; None where XLA does not provide it.
    """

    compiled: jax.stages.Compiled
    seed: np.int32
    seconds: float
    flops: float
    bytes_per_device: int | None

    def run(self, state: Tree, batch: Batch) -> tuple[Tree, Metrics]:
        """One step with the run's seed. The state given to it is donated."""
        return self.compiled(state, batch, self.seed)


def trace_step(spec: StateSpec, batch: Mapping[str, jax.Array | jax.ShapeDtypeStruct]) -> jax.stages.Traced:
    """The step for the shapes, dtypes and placement of this batch, to be compiled for these or other devices."""
    return make_train_step(spec).trace(spec.abstract, batch, spec.seed)


def peak_bytes(memory: Any) -> int:
    """Bytes on each device while a program runs, its arguments included, from XLA's `memory_analysis()`."""
    made = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return memory.argument_size_in_bytes + made + memory.temp_size_in_bytes


def compile_step(spec: StateSpec, batch: Mapping[str, jax.Array | jax.ShapeDtypeStruct]) -> CompiledStep:
    """Compiles the step for the shapes, dtypes and placement of this batch."""
    start = time.perf_counter()
    traced = trace_step(spec, batch)
    compiled = traced.lower().compile()
    seconds = time.perf_counter() - start

    def forward(params: Tree, model_state: Tree, batch: Batch):
        return spec.task.loss(merge(spec.graphdef, params, model_state), batch, jax.random.key(0))

    memory = compiled.memory_analysis()
    total = None if memory is None else peak_bytes(memory)
    flops = model_flops(traced.jaxpr, forward, spec.abstract["params"], spec.abstract["model_state"], batch)
    return CompiledStep(compiled, spec.seed, seconds, flops, total)
