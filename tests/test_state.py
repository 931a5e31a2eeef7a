import dataclasses
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from localmim_jax.engine.state import evaluation_params, join, state_hash
from localmim_jax.errors import ConfigError
from localmim_jax.params import flatten, map_with_path
from tests.tiny import SETTINGS, TASK, NormalizedPerceptron, settings_with_optimizer, spec_for


def test_the_abstract_state_is_what_is_created():
    spec = spec_for(dataclasses.replace(TASK, make_model=NormalizedPerceptron), devices=8, fsdp=4)
    state = spec.create()
    assert set(state) == {"params", "model_state", "opt_state", "ema", "bad_steps", "step"}
    assert jax.tree.structure(state) == jax.tree.structure(spec.abstract)
    for real, abstract in zip(jax.tree.leaves(state), jax.tree.leaves(spec.abstract), strict=True):
        assert (real.shape, real.dtype, real.sharding) == (abstract.shape, abstract.dtype, abstract.sharding)
    assert "norm/mean" in flatten(state["model_state"])
    shards = {shard.data.shape for shard in state["opt_state"]["mu"]["inner"]["kernel"].addressable_shards}
    assert shards == {(16, 64)}
    assert spec.bytes_per_device() == sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(state))


def test_the_same_seed_draws_the_same_parameters_on_any_mesh():
    one = state_hash(spec_for().create()["params"])
    assert state_hash(spec_for(devices=8, fsdp=4).create()["params"]) == one
    other = dataclasses.replace(SETTINGS, seed=1)
    assert state_hash(spec_for(settings=other).create()["params"]) != one


def test_the_hash_is_over_paths_shapes_and_bits():
    array = np.arange(3, dtype=np.float32)
    expected = hashlib.sha256(b"a/b float32 (3,)\n" + array.tobytes()).hexdigest()
    assert state_hash({"a": {"b": jnp.asarray(array)}}) == expected


def test_frozen_parameters_have_no_optimizer_state():
    task = dataclasses.replace(TASK, trainable=lambda path: path.startswith("layers/1"))
    spec = spec_for(task)
    state = spec.create()
    assert set(flatten(state["opt_state"]["mu"])) == {"layers/1/kernel", "layers/1/bias"}
    assert set(flatten(state["ema"])) == {"layers/1/kernel", "layers/1/bias"}
    assert flatten(join(*spec.partition(state["params"]))).keys() == flatten(state["params"]).keys()
    moved = {**state, "ema": jax.tree.map(lambda x: x + 1, state["ema"])}
    evaluated = flatten(evaluation_params(moved))
    np.testing.assert_array_equal(evaluated["layers/0/kernel"], state["params"]["layers"]["0"]["kernel"])
    np.testing.assert_array_equal(evaluated["layers/1/bias"], state["params"]["layers"]["1"]["bias"] + 1)


def test_float16_brings_a_loss_scale():
    state = spec_for(settings=dataclasses.replace(SETTINGS, dtype="float16")).create()
    assert float(state["loss_scale"]["scale"]) == 2.0**15


def test_init_from_replaces_parameters_before_the_average_is_started():
    def init_from(params, model_state):
        assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(params))
        return map_with_path(lambda path, leaf: np.full_like(leaf, 0.5), params), model_state

    state = spec_for(dataclasses.replace(TASK, init_from=init_from), devices=8, fsdp=4).create()
    for tree in (state["params"], state["ema"]):
        assert all(np.all(np.asarray(leaf) == 0.5) for leaf in jax.tree.leaves(tree))


def test_an_init_from_that_does_not_fit_is_refused_with_every_difference():
    def init_from(params, model_state):
        layers = params["layers"]
        return {"layers": {"0": {"kernel": layers["0"]["kernel"][:3]}, "1": {**layers["1"], "x": 0}}}, model_state

    with pytest.raises(ConfigError) as error:
        spec_for(dataclasses.replace(TASK, init_from=init_from)).create()
    for part in ("layers/0/bias is missing", "layers/1/x is unknown", "layers/0/kernel is float32[3, 64]"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainable": lambda path: False}, "no parameter is trainable"),
        ({"weight_decay_rules": ()}, "layers/0/bias matches none"),
        ({"make_model": lambda rngs: nnx.Linear(2, 2, param_dtype=jnp.bfloat16, rngs=rngs)}, "must be float32"),
    ],
)
def test_tasks_that_cannot_be_trained_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        spec_for(dataclasses.replace(TASK, **changes), settings_with_optimizer()).create()
