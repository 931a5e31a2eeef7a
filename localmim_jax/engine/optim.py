"""From gradients to updates: AdamW, LARS and momentum with weight decay and learning rates chosen by parameter path."""

import dataclasses
import re
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import optax

from localmim_jax.engine.settings import OptimizerSettings
from localmim_jax.errors import ConfigError
from localmim_jax.params import Tree, map_with_path

LARS_TRUST_COEFFICIENT = 0.001


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """Updates of a nested dict of parameters; its state is a pure dict of arrays.

    Attributes:
        settings: the numbers.
        decayed: by path, whether weight decay (and LARS's trust ratio) applies.
        lr_scale: by path, the factor on the learning rate.
    """

    settings: OptimizerSettings
    decayed: dict[str, bool]
    lr_scale: dict[str, float]

    def init(self, params: Tree) -> Tree:
        if self.settings.name == "adamw":
            return self._adam().init(params)._asdict()
        return self._momentum().init(params)._asdict()

    def update(self, gradients: Tree, state: Tree, params: Tree, learning_rate: jax.Array) -> tuple[Tree, Tree]:
        """(updates to add to the parameters, new state)."""
        if self.settings.name == "adamw":
            direction, new_state = self._adam().update(gradients, optax.ScaleByAdamState(**state))
            direction = self._with_decay(direction, params)
        else:
            gradients = self._with_decay(gradients, params)
            if self.settings.name == "lars":
                gradients = map_with_path(self._trust, gradients, params)
            direction, new_state = self._momentum().update(gradients, optax.TraceState(**state))
        updates = map_with_path(lambda path, d: -learning_rate * self.lr_scale[path] * d, direction)
        return updates, new_state._asdict()

    def _adam(self) -> optax.GradientTransformation:
        return optax.scale_by_adam(self.settings.b1, self.settings.b2, self.settings.eps)

    def _momentum(self) -> optax.GradientTransformation:
        return optax.trace(self.settings.momentum)

    def _with_decay(self, direction: Tree, params: Tree) -> Tree:
        def add(path: str, d: jax.Array, p: jax.Array) -> jax.Array:
            return d + self.settings.weight_decay * p if self.decayed[path] and self.settings.weight_decay else d

        return map_with_path(add, direction, params)

    def _trust(self, path: str, gradient: jax.Array, param: jax.Array) -> jax.Array:
        if not self.decayed[path]:
            return gradient
        ratio = optax.scale_by_trust_ratio(trust_coefficient=LARS_TRUST_COEFFICIENT)
        return ratio.update(gradient, ratio.init(param), param)[0]


def make_optimizer(
    settings: OptimizerSettings,
    paths: Iterable[str],
    weight_decay_rules: tuple[tuple[str, bool], ...],
    layer_of: Callable[[str], int] | None = None,
) -> Optimizer:
    """The optimizer of the parameters at `paths` (the trained ones).

    The learning rate of layer i is scaled by layer_decay ** (top layer - i), the top layer being the highest id of any
    path (MAE's rule; BEiT's).

    Raises:
        ConfigError: a path that no rule or several rules match (all of them are listed), or layer decay for a task
            without layers.
    """
    paths = tuple(paths)
    decayed = _decayed(paths, weight_decay_rules)
    if settings.layer_decay is None:
        return Optimizer(settings, decayed, dict.fromkeys(paths, 1.0))
    if layer_of is None:
        raise ConfigError("optimizer.layer_decay is set, but this task does not number its layers; leave it out")
    layers = {path: layer_of(path) for path in paths}
    top = max(layers.values())
    return Optimizer(settings, decayed, {path: settings.layer_decay ** (top - layer) for path, layer in layers.items()})


def global_norm(tree: Tree) -> jax.Array:
    """L2 norm of all leaves together, float32."""
    stacks: dict[tuple, list[jax.Array]] = {}
    for leaf in jax.tree.leaves(tree):
        stacks.setdefault((leaf.shape, leaf.dtype), []).append(leaf)
    # Alike leaves together: one reduction a shape, where one a leaf would be hundreds of small kernels.
    squares = [jnp.sum(jnp.square(jnp.stack(leaves).astype(jnp.float32))) for leaves in stacks.values()]
    return jnp.sqrt(sum(squares, jnp.float32(0)))


def clip_by_norm(gradients: Tree, norm: jax.Array, limit: float) -> Tree:
    """Gradients of global norm `norm` scaled down to norm `limit` where they exceed it, as torch's clip_grad_norm_."""
    factor = jnp.minimum(1.0, limit / (norm + 1e-6))
    return jax.tree.map(lambda g: g * factor, gradients)


def _decayed(paths: tuple[str, ...], rules: tuple[tuple[str, bool], ...]) -> dict[str, bool]:
    matches = {path: [rule for rule in rules if re.search(rule[0], path)] for path in paths}
    offenders = [
        f"{path} matches " + (" and ".join(repr(pattern) for pattern, _ in found) if found else "none")
        for path, found in matches.items()
        if len(found) != 1
    ]
    if offenders:
        raise ConfigError("weight-decay rules must cover each parameter exactly once; " + "; ".join(offenders))
    return {path: found[0][1] for path, found in matches.items()}
