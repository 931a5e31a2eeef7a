"""The learning rate as a function of the step."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from localmim_jax.engine.settings import ScheduleSettings
from localmim_jax.errors import ConfigError

Schedule = Callable[[jax.Array], jax.Array]


def make_schedule(settings: ScheduleSettings, batch_size: int, num_steps: int, steps_per_epoch: float) -> Schedule:
    """step (int32 scalar, the number of updates already made) -> learning rate (float32 scalar).

    "cosine" rises linearly from `warmup_lr` to the peak and falls as half a cosine to `min_lr` (MAE's and LocalMIM's
    schedule). "linear" and "steps" are OpenMMLab's: the warm-up factor multiplies a rate that decays from step 0 on.

    Raises:
        ConfigError: the warm-up is as long as the run, or a milestone lies beyond its end.
    """
    peak = settings.peak(batch_size)
    epochs = settings.warmup_epochs * steps_per_epoch
    warmup = float(epochs if settings.warmup_steps is None else settings.warmup_steps)
    if warmup >= num_steps:
        raise ConfigError(f"schedule: a warm-up of {warmup:g} steps does not fit in a run of {num_steps}; shorten it")
    if settings.min_lr > peak or settings.warmup_lr > peak:
        raise ConfigError(f"schedule: min_lr and warmup_lr must not exceed the peak, which is {peak:g}")
    milestones = settings.milestones or tuple(round(epoch * steps_per_epoch) for epoch in settings.milestone_epochs)
    if milestones and milestones[-1] >= num_steps:
        raise ConfigError(f"schedule: milestone {milestones[-1]} lies beyond the run's {num_steps} steps")

    def fraction_left(step: jax.Array, start: float) -> jax.Array:
        return jnp.clip((num_steps - step) / (num_steps - start), 0.0, 1.0)

    def cosine(step: jax.Array) -> jax.Array:
        # (1 + cos(pi x)) / 2 written as a square: float32 would cancel near the end of the run.
        half_cosine = jnp.square(jnp.sin(0.5 * jnp.pi * fraction_left(step, warmup)))
        return settings.min_lr + (peak - settings.min_lr) * half_cosine

    def linear(step: jax.Array) -> jax.Array:
        return settings.min_lr + (peak - settings.min_lr) * fraction_left(step, 0.0)

    def steps(step: jax.Array) -> jax.Array:
        rate = jnp.full(jnp.shape(step), peak)
        for milestone in milestones:
            rate = jnp.where(step >= milestone, 0.1 * rate, rate)
        return rate

    def schedule(step: jax.Array) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        decayed = {"cosine": cosine, "linear": linear, "steps": steps}[settings.kind](step)
        if not warmup:
            return decayed
        base = peak if settings.kind == "cosine" else decayed
        start = settings.warmup_lr / peak
        return jnp.where(step < warmup, base * (start + (1 - start) * step / warmup), decayed)

    return schedule
