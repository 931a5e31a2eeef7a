"""Reading parts of a checkpoint without a run."""

import jax
import numpy as np
import pytest

from localmim_jax.engine.checkpoints.read import complete_steps, find_checkpoint, load_params
from localmim_jax.errors import ConfigError, StorageError
from tests.checkpoints import make_state, write_steps


@pytest.mark.parametrize("where", [".", "checkpoints", "checkpoints/2"])
def test_parameters_load_anywhere(workdir, where):
    encoder = load_params(workdir / where, "params/encoder")
    assert sorted(encoder) == ["bias", "kernel"]
    assert all(type(leaf) is np.ndarray for leaf in encoder.values())
    np.testing.assert_array_equal(encoder["bias"], np.full(64, 2, np.float32))
    assert jax.tree.structure(load_params(workdir / where)) == jax.tree.structure(make_state(0)["params"])
    assert load_params(workdir / where, "model_state") == {}


@pytest.mark.parametrize("where", [".", "checkpoints", "checkpoints/2"])
def test_a_run_still_training_is_read_at_one_step(workdir, where):
    step = find_checkpoint(workdir / where)
    assert step == workdir / "checkpoints" / "2"
    write_steps(workdir / "checkpoints", [3])
    np.testing.assert_array_equal(load_params(step, "params/encoder")["bias"], np.full(64, 2, np.float32))


def test_loading_names_what_is_missing(workdir, tmp_path):
    with pytest.raises(ConfigError, match="no 'params/teacher'; params has decoders, encoder"):
        load_params(workdir, "params/teacher")
    with pytest.raises(ConfigError, match="the state has ema, half, model_state, opt_state, params, step"):
        load_params(workdir, "weights")
    with pytest.raises(StorageError, match="holds no complete checkpoint"):
        load_params(tmp_path)


def test_loading_falls_back_but_moves_nothing(workdir):
    (workdir / "checkpoints" / "2" / "state" / "manifest.ocdbt").write_bytes(b"")
    np.testing.assert_array_equal(load_params(workdir)["encoder"]["bias"], np.full(64, 1, np.float32))
    assert complete_steps(workdir / "checkpoints") == [1, 2]
    with pytest.raises(StorageError, match=r"manifest\.ocdbt has 0 bytes"):
        load_params(workdir / "checkpoints" / "2")
