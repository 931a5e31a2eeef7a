"""The rate of a linear probe: a run in which LARS leaves the head as it was drawn is warned of before it starts."""

import re

import jax
import jax.numpy as jnp
import numpy as np

from localmim_jax.build import build_task
from localmim_jax.configs import parts, quickstart
from localmim_jax.engine.optim import LARS_TRUST_COEFFICIENT, make_optimizer
from tests.defaults import optimizer_settings
from tests.shrink import shrink


def test_a_rate_at_which_lars_does_nothing_is_told_with_a_better_one():
    """90 images in batches of 30: the protocol's base rate moves the head by 1.6 % of its norm, in the run and here."""
    changes = {"checkpoint.init_from": "runs/later", "data.name": "fake", "data.fake_examples": 90}
    config = shrink(parts.linear_probe(quickstart.encoder()))
    config.model.update({"width": 16, "depth": 2, "num_heads": 2})
    config.update_from_flattened_dict(changes)
    config.update({"image_size": (16, 16), "batch_size": 30, "num_steps": None, "num_epochs": 90.0})
    config.schedule.update({"warmup_steps": None, "warmup_epochs": 10.0})
    (warning,) = build_task(config, "")[0].warnings
    assert "at most 0.016 times its initial norm in 270 steps" in warning
    better = float(re.search(r"schedule\.base_lr=(\d+)", warning)[1])
    assert better == 95
    config.schedule.base_lr = better
    assert build_task(config, "")[0].warnings == ()
    config.schedule.base_lr = 0.1
    config.optimizer.name = "momentum"  # steps as long as the gradient
    assert build_task(config, "")[0].warnings == ()


def test_the_bound_on_the_head_is_what_lars_does():
    """Four updates with any gradient: the kernel moves by no more than the bound, and by nearly as much."""
    optimizer = make_optimizer(
        optimizer_settings(name="lars", momentum=0.9, weight_decay=0.0), ["head/kernel"], ((r"kernel$", True),)
    )
    rng = np.random.default_rng(0)
    start = params = {"head": {"kernel": jnp.asarray(rng.normal(size=(16, 10)), jnp.float32)}}
    state = optimizer.init(params)
    gradient = {"head": {"kernel": jnp.asarray(1e3 * rng.normal(size=(16, 10)), jnp.float32)}}
    for _ in range(60):
        updates, state = optimizer.update(gradient, state, params, jnp.float32(0.05))
        params = jax.tree.map(jnp.add, params, updates)
    moved = jnp.linalg.norm(params["head"]["kernel"] - start["head"]["kernel"]) / jnp.linalg.norm(
        start["head"]["kernel"]
    )
    bound = 60 * 0.05 * LARS_TRUST_COEFFICIENT / (1 - 0.9)
    assert 0.7 * bound < float(moved) < 1.05 * bound
