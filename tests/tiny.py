"""A small real task for the engine's tests: classify scikit-learn's digits, held in memory."""

import dataclasses
import functools
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from sklearn.datasets import load_digits

from localmim_jax.engine.mesh import make_mesh, place_batch
from localmim_jax.engine.settings import RunSettings
from localmim_jax.engine.state import StateSpec
from localmim_jax.engine.step import make_train_step
from localmim_jax.engine.task import Task
from localmim_jax.params import model_state_of
from tests.defaults import mesh_settings, optimizer_settings, run_settings, schedule_settings

DIGITS = load_digits()
RULES = ((r"(kernel)$", True), (r"(bias|scale)$", False))
SETTINGS = run_settings(
    schedule=schedule_settings(peak_lr=1e-2, warmup_steps=2), optimizer=optimizer_settings(ema_decay=0.9)
)


def scatter(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """Initial weights from the bits of a key. Real random numbers take ten times as long to compile."""
    phase = jax.random.key_data(key).ravel()[0] % 1000
    index = jnp.arange(math.prod(shape), dtype=jnp.float32).reshape(shape)
    return (jnp.sin(0.37 * jnp.square(index % 997) + phase) * math.sqrt(2 / shape[0])).astype(dtype)


def linear(rngs: nnx.Rngs, inputs: int, outputs: int, dtype=jnp.float32) -> nnx.Linear:
    return nnx.Linear(inputs, outputs, dtype=dtype, kernel_init=scatter, rngs=rngs)


class Perceptron(nnx.Module):
    """64 pixels -> 64 -> 10 logits."""

    def __init__(self, rngs: nnx.Rngs, dtype=jnp.float32):
        self.layers = nnx.List([linear(rngs, 64, 64, dtype), linear(rngs, 64, 10, dtype)])

    def __call__(self, pixels: jax.Array) -> jax.Array:
        return self.layers[1](jnp.tanh(self.layers[0](pixels)))


class NormalizedPerceptron(nnx.Module):
    """The same with batch normalization, and so with a model state."""

    def __init__(self, rngs: nnx.Rngs):
        self.inner, self.outer = linear(rngs, 64, 64), linear(rngs, 64, 10)
        self.norm = nnx.BatchNorm(64, momentum=0.9, rngs=rngs)

    def __call__(self, pixels: jax.Array) -> jax.Array:
        return self.outer(jnp.tanh(self.norm(self.inner(pixels), use_running_average=False)))


def cross_entropy(model: nnx.Module, batch, key: jax.Array):
    """Mean cross-entropy at a random contrast, so that a wrong key is seen."""
    contrast = 0.8 + 0.4 * jax.random.uniform(key)
    logits = model(contrast * batch["image"] / 16.0).astype(jnp.float32)
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), batch["label"][:, None], axis=1)
    accuracy = jnp.mean(jnp.argmax(logits, axis=1) == batch["label"])
    return -jnp.mean(chosen), {"accuracy": accuracy}, model_state_of(model)


def quiet_cross_entropy(model: nnx.Module, batch, key: jax.Array):
    """The same whatever the keys."""
    logits = model(batch["image"] / 16.0).astype(jnp.float32)
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), batch["label"][:, None], axis=1)
    return -jnp.mean(chosen), {}, model_state_of(model)


def batches(first_step: int, batch_size: int = 32, seed: int = 0) -> Iterator[dict[str, np.ndarray]]:
    step = first_step
    while True:
        ids = np.random.default_rng((seed, step)).integers(0, 1500, batch_size)
        yield {
            "image": DIGITS.data[ids].astype(np.float32),
            "label": DIGITS.target[ids].astype(np.int32),
            "id": ids,
        }
        step += 1


TASK = Task(
    name="digits",
    make_model=Perceptron,
    loss=cross_entropy,
    train_batches=batches,
    batch_size=32,
    num_steps=20,
    steps_per_epoch=47.0,
    weight_decay_rules=RULES,
)


def spec_for(task: Task = TASK, settings: RunSettings = SETTINGS, devices: int = 1, fsdp: int = 1) -> StateSpec:
    return StateSpec(task, settings, make_mesh(mesh_settings(fsdp=fsdp), jax.devices()[:devices]))


def settings_with_optimizer(**changes) -> RunSettings:
    return dataclasses.replace(SETTINGS, optimizer=dataclasses.replace(SETTINGS.optimizer, **changes))


compiled_step = functools.cache(make_train_step)


def train(spec: StateSpec, num_steps: int, state=None, source=None):
    """(state, [metrics of each step as floats]) after some steps; each is waited for."""
    step = compiled_step(spec)
    state = spec.create() if state is None else state
    source = spec.task.train_batches(int(state["step"])) if source is None else source
    history = []
    for _, batch in zip(range(num_steps), source, strict=False):
        state, metrics = step(state, place_batch(spec.mesh, batch), spec.seed)
        history.append({name: float(value) for name, value in metrics.items()})
    return state, history
