"""The train state: a pure dict {params, model_state, opt_state, ema, bad_steps, step}, and loss_scale under float16."""

import dataclasses
import hashlib
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from localmim_jax.engine import mesh as meshes
from localmim_jax.engine.optim import Optimizer, make_optimizer
from localmim_jax.engine.settings import RunSettings
from localmim_jax.engine.task import Task
from localmim_jax.errors import ConfigError
from localmim_jax.params import Tree, flatten, initialize, split, unflatten

INITIAL_LOSS_SCALE = 2.0**15


@dataclasses.dataclass(frozen=True)
class StateSpec:
    """Structure, shapes and placement of a run's state, before any array exists."""

    task: Task
    settings: RunSettings
    mesh: Mesh

    @cached_property
    def _model(self) -> tuple[Any, Tree, Tree]:
        graphdef, params, model_state = split(self.task.make_model)
        wrong = [path for path, leaf in flatten(params).items() if leaf.dtype != jnp.float32]
        if wrong:
            raise ConfigError(f"parameters must be float32, these are not: {', '.join(wrong)}")
        return graphdef, params, model_state

    @property
    def graphdef(self) -> Any:
        """The model's structure, for `params.merge`."""
        return self._model[0]

    @property
    def abstract_params(self) -> Tree:
        return self._model[1]

    @cached_property
    def optimizer(self) -> Optimizer:
        trained, _ = self.partition(self.abstract_params)
        if not trained:
            raise ConfigError("no parameter is trainable; nothing to do")
        return make_optimizer(
            self.settings.optimizer, flatten(trained), self.task.weight_decay_rules, self.task.layer_of
        )

    def partition(self, params: Tree) -> tuple[Tree, Tree]:
        """(trained, frozen) parameters."""
        flat = flatten(params)
        trained = {path: leaf for path, leaf in flat.items() if self.task.trainable(path)}
        return unflatten(trained), unflatten({path: leaf for path, leaf in flat.items() if path not in trained})

    @cached_property
    def abstract(self) -> Tree:
        """The state's shapes, dtypes and shardings (`jax.ShapeDtypeStruct`)."""
        _, params, model_state = self._model
        shapes = jax.eval_shape(self._complete, params, model_state)
        shardings = meshes.state_shardings(self.mesh, shapes)
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes, shardings
        )

    @cached_property
    def shardings(self) -> Tree:
        return jax.tree.map(lambda leaf: leaf.sharding, self.abstract)

    @property
    def seed(self) -> np.int32:
        """The run's seed, as a compiled step takes it."""
        return np.int32(self.settings.seed)

    def create(self) -> Tree:
        """The state at step 0 on the devices, initialized from the seed and passed through the task's `init_from`."""
        targets = self.shardings["params"], self.shardings["model_state"]

        def draw(seed: jax.Array) -> tuple[Tree, Tree]:
            # The last key of the seed. Steps fold in 0, 1, ... and never reach it.
            return initialize(self.task.make_model, jax.random.fold_in(jax.random.key(seed), 2**32 - 1))

        params, model_state = jax.jit(draw, out_shardings=targets)(self.settings.seed)
        if self.task.init_from is not None:
            drawn = meshes.gather((params, model_state))
            loaded = self.task.init_from(*drawn)
            _check_same(drawn, loaded)
            params, model_state = meshes.place_state(loaded, targets)
        return jax.jit(self._complete, out_shardings=self.shardings)(params, model_state)

    def _complete(self, params: Tree, model_state: Tree) -> Tree:
        trained, _ = self.partition(params)
        state = {
            "params": params,
            "model_state": model_state,
            "opt_state": self.optimizer.init(trained),
            # A copy, since the step donates its state, and a buffer cannot be donated twice.
            "ema": {} if self.settings.optimizer.ema_decay is None else jax.tree.map(jnp.copy, trained),
            "bad_steps": {"total": jnp.zeros((), jnp.int32), "in_a_row": jnp.zeros((), jnp.int32)},
            "step": jnp.zeros((), jnp.int32),
        }
        if self.settings.dtype == "float16":
            scale, good_steps = jnp.full((), INITIAL_LOSS_SCALE, jnp.float32), jnp.zeros((), jnp.int32)
            state["loss_scale"] = {"scale": scale, "good_steps": good_steps}
        return state

    def bytes_per_device(self) -> int:
        """Memory of the state on each device, in bytes."""
        return sum(
            int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize
            for leaf in jax.tree.leaves(self.abstract)
        )


def join(trained: Tree, frozen: Tree) -> Tree:
    """The inverse of `StateSpec.partition`."""
    return unflatten({**flatten(frozen), **flatten(trained)})


def evaluation_params(state: Tree) -> Tree:
    """The parameters to evaluate and to export: the moving average if there is one, else the parameters."""
    return join(state["ema"], state["params"])


def state_hash(params: Tree) -> str:
    """sha256 over the paths and bits of the parameters. A collective: every process must call it."""
    digest = hashlib.sha256()
    for path, leaf in sorted(flatten(params).items()):
        array = meshes.gather(leaf)
        digest.update(f"{path} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _check_same(expected: Any, found: Any) -> None:
    """Raises ConfigError if loaded arrays differ from the initialized ones in name, shape or dtype."""
    problems = []
    for wanted, given in zip(expected, found, strict=True):
        wanted, given = flatten(wanted), flatten(given)
        problems += [f"{path} is missing" for path in wanted.keys() - given.keys()]
        problems += [f"{path} is unknown" for path in given.keys() - wanted.keys()]
        for path in wanted.keys() & given.keys():
            kind, got = (wanted[path].shape, wanted[path].dtype), (np.shape(given[path]), np.asarray(given[path]).dtype)
            if kind != got:
                problems.append(f"{path} is {got[1]}{list(got[0])}, not {kind[1]}{list(kind[0])}")
    if problems:
        raise ConfigError("init_from does not fit the model: " + "; ".join(sorted(problems)))
