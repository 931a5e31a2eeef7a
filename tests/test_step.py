import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from localmim_jax.engine.mesh import abstract_batch, place_batch
from localmim_jax.engine.state import state_hash
from localmim_jax.engine.step import LOSS_SCALE_GROWTH_INTERVAL, make_train_step, trace_step
from localmim_jax.errors import ConfigError
from localmim_jax.params import flatten
from tests.tiny import (
    SETTINGS,
    TASK,
    NormalizedPerceptron,
    Perceptron,
    batches,
    quiet_cross_entropy,
    settings_with_optimizer,
    spec_for,
    train,
)


def losses(history):
    return [metrics["loss"] for metrics in history]


def poisoned(bad_steps):
    """The task's batches with NaN pixels in some of them."""
    for step, batch in enumerate(batches(0)):
        yield {**batch, "image": batch["image"] * np.float32(np.nan if step in bad_steps else 1)}


@pytest.fixture(scope="module")
def reference():
    """Five steps on one device."""
    return train(spec_for(), 5)


def test_training_learns():
    _, history = train(spec_for(dataclasses.replace(TASK, num_steps=60)), 60)
    assert losses(history)[-1] < 0.2 * losses(history)[0]
    assert history[-1]["accuracy"] > 0.8


@pytest.mark.parametrize(("devices", "fsdp"), [(4, 1), (8, 1), (8, 4)])
def test_any_number_of_devices_gives_the_same_run(reference, devices, fsdp):
    state, history = train(spec_for(devices=devices, fsdp=fsdp), 5)
    np.testing.assert_allclose(losses(history), losses(reference[1]), rtol=1e-5)
    for path, leaf in flatten(state["params"]).items():
        np.testing.assert_allclose(leaf, flatten(reference[0]["params"])[path], atol=1e-4, err_msg=path)
    kernel = state["opt_state"]["mu"]["layers"]["0"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (64 // fsdp, 64)


def test_two_runs_are_identical(reference):
    state, history = train(spec_for(), 5)
    assert losses(history) == losses(reference[1])
    assert state_hash(state["params"]) == state_hash(reference[0]["params"])


def test_the_state_is_donated_and_its_buffers_reused():
    spec = spec_for()
    state = spec.create()
    batch = place_batch(spec.mesh, next(batches(0)))
    compiled = make_train_step(spec).lower(state, batch, spec.seed).compile()
    assert compiled.memory_analysis().alias_size_in_bytes >= spec.bytes_per_device()
    leaves = jax.tree.leaves(state)
    compiled(state, batch, spec.seed)
    assert all(leaf.is_deleted() for leaf in leaves)


def test_runs_with_other_seeds_share_one_program():
    batch = abstract_batch(spec_for().mesh, next(batches(0)))
    specs = [spec_for(settings=dataclasses.replace(SETTINGS, seed=seed)) for seed in (SETTINGS.seed, SETTINGS.seed + 1)]
    first, second = (trace_step(spec, batch).lower().as_text() for spec in specs)
    assert first == second
    histories = [losses(train(spec, 2)[1]) for spec in specs]
    assert histories[0] != histories[1]


@pytest.mark.parametrize("devices", [1, 4])
def test_accumulation_equals_the_full_batch(devices):
    task = dataclasses.replace(TASK, loss=quiet_cross_entropy)
    full, full_history = train(spec_for(task), 4)
    cut, cut_history = train(spec_for(task, dataclasses.replace(SETTINGS, accum_steps=4), devices), 4)
    np.testing.assert_allclose(losses(cut_history), losses(full_history), rtol=1e-5)
    for path, leaf in flatten(cut["params"]).items():
        np.testing.assert_allclose(leaf, flatten(full["params"])[path], atol=1e-4, err_msg=path)


def test_micro_batches_are_strided_have_their_own_key_and_pass_the_model_state_on():
    def loss(model, batch, key):
        seen = jax.random.uniform(key) + 0 * model.layers[1].bias[0]
        return jnp.square(model.layers[1].bias[0]) + jnp.mean(batch["label"] == 0), {"seen": seen}, {}

    spec = spec_for(dataclasses.replace(TASK, loss=loss, batch_size=8), dataclasses.replace(SETTINGS, accum_steps=2))
    batch = {"label": np.arange(8) % 2}
    _, metrics = make_train_step(spec)(spec.create(), place_batch(spec.mesh, batch), spec.seed)
    step_key = jax.random.fold_in(jax.random.key(SETTINGS.seed), 0)
    expected = np.mean([jax.random.uniform(jax.random.fold_in(step_key, micro)) for micro in range(2)])
    np.testing.assert_allclose(metrics["seen"], expected, rtol=1e-6)

    # Batch norm's running statistics after two micro-batches are two updates, by the even and then the odd examples.
    task = dataclasses.replace(TASK, make_model=NormalizedPerceptron, loss=quiet_cross_entropy)
    spec = spec_for(task, dataclasses.replace(SETTINGS, accum_steps=2), devices=4)
    state, batch = spec.create(), next(batches(0))
    inner = jax.device_get(state["params"]["inner"])
    hidden = batch["image"] / 16 @ inner["kernel"] + inner["bias"]
    even, odd = hidden[0::2], hidden[1::2]
    state, _ = make_train_step(spec)(state, place_batch(spec.mesh, batch), spec.seed)
    running = state["model_state"]["norm"]
    np.testing.assert_allclose(running["mean"], 0.9 * (0.1 * even.mean(0)) + 0.1 * odd.mean(0), atol=1e-5)
    np.testing.assert_allclose(running["var"], 0.9 * (0.9 + 0.1 * even.var(0)) + 0.1 * odd.var(0), atol=1e-5)


@pytest.mark.parametrize("accum_steps", [1, 2])
def test_a_bad_step_changes_nothing_but_the_counts(accum_steps):
    task = dataclasses.replace(TASK, make_model=NormalizedPerceptron)
    spec = spec_for(task, dataclasses.replace(SETTINGS, accum_steps=accum_steps))
    state, _ = train(spec, 2)
    before = jax.device_get(state)
    state, history = train(spec, 1, state, poisoned({0}))
    after = jax.device_get(state)
    for name in ("params", "opt_state", "ema", "model_state"):
        jax.tree.map(np.testing.assert_array_equal, before[name], after[name])
    assert after["step"] == 3
    assert (history[0]["skipped"], history[0]["skipped_in_a_row"], history[0]["skipped_steps"]) == (1, 1, 1)
    state, history = train(spec, 2, state, poisoned({0}))
    assert [m["skipped_in_a_row"] for m in history] == [2, 0]
    assert [m["skipped_steps"] for m in history] == [2, 2]
    assert np.isfinite(losses(history)[1])
    assert int(state["opt_state"]["count"]) == 3  # of five steps two were bad


def test_an_infinite_gradient_of_a_finite_loss_is_skipped():
    def loss(model, batch, key):
        return jnp.sqrt(jnp.abs(model.layers[1].bias[0])), {}, {}  # bias starts at 0, where the root is vertical

    state, history = train(spec_for(dataclasses.replace(TASK, loss=loss)), 1)
    assert losses(history) == [0.0]
    assert history[0]["skipped"] == 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(state)))


def test_frozen_parameters_stay_and_are_not_differentiated():
    task = dataclasses.replace(TASK, trainable=lambda path: path.startswith("layers/1"))
    spec = spec_for(task)
    start = jax.device_get(spec.create()["params"])
    state, history = train(spec, 3)
    jax.tree.map(np.testing.assert_array_equal, start["layers"]["0"], jax.device_get(state["params"]["layers"]["0"]))
    assert np.any(start["layers"]["1"]["kernel"] != state["params"]["layers"]["1"]["kernel"])
    trained = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(jax.device_get(state["ema"]))))
    assert 0 < history[-1]["norm/parameters"] < 2 * trained


def test_layer_decay_slows_the_first_layer():
    task = dataclasses.replace(TASK, layer_of=lambda path: int(path.split("/")[1]))
    moved = {}
    for decay in (None, 0.25):
        spec = spec_for(task, settings_with_optimizer(layer_decay=decay, weight_decay=0.0))
        start = jax.device_get(spec.create()["params"])
        state, _ = train(spec, 2)  # the warm-up's first rate is 0, so this is one update
        moved[decay] = jax.tree.map(lambda a, b: np.asarray(a) - b, state["params"], start)["layers"]
    np.testing.assert_allclose(moved[0.25]["0"]["kernel"], 0.25 * moved[None]["0"]["kernel"], atol=1e-7)
    np.testing.assert_allclose(moved[0.25]["1"]["kernel"], moved[None]["1"]["kernel"], atol=1e-7)


def test_clipping_average_and_reported_norms():
    spec = spec_for(settings=settings_with_optimizer(name="momentum", momentum=0.0, weight_decay=0.0, clip_norm=0.1))
    state, _ = train(spec, 2)
    before = jax.device_get(state)
    state, (metrics,) = train(spec, 1, state)
    after = jax.device_get(state)
    assert metrics["norm/gradient"] > 0.1
    assert metrics["norm/update"] == pytest.approx(0.1 * metrics["learning_rate"], rel=1e-4)
    step = jax.tree.map(np.subtract, after["params"], before["params"])
    assert np.sqrt(sum(np.sum(s**2) for s in jax.tree.leaves(step))) == pytest.approx(metrics["norm/update"], rel=1e-3)
    jax.tree.map(
        lambda new, old, p: np.testing.assert_allclose(new, 0.9 * old + 0.1 * p, atol=1e-7),
        after["ema"],
        before["ema"],
        after["params"],
    )


def test_float16_finds_its_loss_scale():
    settings = dataclasses.replace(SETTINGS, dtype="float16")
    task = dataclasses.replace(TASK, make_model=lambda rngs: Perceptron(rngs, dtype=jnp.float16))
    spec = spec_for(task, settings)
    state, history = train(spec, 3)
    for found, expected in zip(history, train(spec_for(), 3)[1], strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], rel=2e-3)
        assert found["norm/gradient"] == pytest.approx(expected["norm/gradient"], rel=2e-2)

    def with_scale(state, scale, good_steps=0):
        pair = {"scale": jnp.float32(scale), "good_steps": jnp.int32(good_steps)}
        return {**state, "loss_scale": jax.device_put(pair, spec.shardings["loss_scale"])}

    before = jax.device_get(state["params"])
    state, history = train(spec, 1, with_scale(state, 2.0**40))  # overflows in float16: halved, excused
    jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(state["params"]))
    assert float(state["loss_scale"]["scale"]) == 2.0**39
    assert (history[0]["skipped"], history[0]["skipped_in_a_row"]) == (1, 0)

    state, _ = train(spec, 1, with_scale(state, 2.0**10, LOSS_SCALE_GROWTH_INTERVAL - 1))
    assert jax.device_get(state["loss_scale"]) == {"scale": 2.0**11, "good_steps": 0}
    state, _ = train(spec, 1, state)
    assert jax.device_get(state["loss_scale"]) == {"scale": 2.0**11, "good_steps": 1}

    state, history = train(spec, 1, state, poisoned({0}))  # a NaN loss is no matter of scale
    assert history[0]["skipped_in_a_row"] == 1


def test_the_phases_of_a_step_can_be_read_in_the_compiled_program():
    spec = spec_for(settings=settings_with_optimizer(clip_norm=1.0))
    program = (
        make_train_step(spec).lower(spec.abstract, abstract_batch(spec.mesh, next(batches(0))), spec.seed).compile()
    )
    names = re.findall(r'op_name="jit\(train_step\)/(\w+)/', program.as_text())
    assert {"gradients", "finite_check", "clipping", "optimizer", "ema", "metrics"} <= set(names)


def test_batches_that_cannot_be_shared_are_refused():
    with pytest.raises(ConfigError, match="which 8 devices cannot share evenly"):
        make_train_step(spec_for(settings=dataclasses.replace(SETTINGS, accum_steps=8), devices=8))
