"""From gradients to updates: AdamW, LARS and momentum, with weight decay and learning rates by parameter path."""

import dataclasses
import re
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from localmim_jax.engine.settings import OptimizerSettings
from localmim_jax.errors import ConfigError
from localmim_jax.params import Tree, unflatten

LARS_TRUST_COEFFICIENT = 0.001
_STACKED = 2**16  # values of a parameter up to which its norm is taken together with others


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """Updates of a nested dict of parameters; its state is a pure dict of arrays.

    Attributes:
        transformation: optax chain, whose update takes a `learning_rate`. One of its parts has a state.
        decayed: by path, whether weight decay (and LARS's trust ratio) applies.
        lr_scale: by path, the factor on the learning rate.
    """

    transformation: optax.GradientTransformationExtraArgs
    decayed: dict[str, bool]
    lr_scale: dict[str, float]

    def init(self, params: Tree) -> Tree:
        """The state of the chain's one part that has a state, {"count", "mu", "nu"} or {"trace"}."""
        return _as_dict(self.transformation.init(params))

    def update(self, gradients: Tree, state: Tree, params: Tree, learning_rate: jax.Array) -> tuple[Tree, Tree]:
        """(updates to add to the parameters, new state)."""
        empty = jax.eval_shape(self.transformation.init, params)
        chain_state = tuple(part._replace(**state) if jax.tree.leaves(part) else part for part in empty)
        updates, new_state = self.transformation.update(gradients, chain_state, params, learning_rate=learning_rate)
        return updates, _as_dict(new_state)


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
    lr_scale = dict.fromkeys(paths, 1.0)
    if settings.layer_decay is not None:
        if layer_of is None:
            raise ConfigError("optimizer.layer_decay is set, but this task does not number its layers; leave it out")
        layers = {path: layer_of(path) for path in paths}
        top = max(layers.values())
        lr_scale = {path: settings.layer_decay ** (top - layer) for path, layer in layers.items()}
    return Optimizer(_chain(settings, unflatten(decayed), unflatten(lr_scale)), decayed, lr_scale)


def global_norm(tree: Tree) -> jax.Array:
    """L2 norm of all leaves together, float32."""
    stacks: dict[tuple, list[jax.Array]] = {}
    for number, leaf in enumerate(jax.tree.leaves(tree)):
        alone = number if leaf.size > _STACKED else None
        stacks.setdefault((leaf.shape, leaf.dtype, alone), []).append(leaf)
    # Small leaves that are alike go together: one reduction a shape, where one a leaf would be hundreds of kernels.
    # Large ones go alone: a TPU would copy them to stack them.
    squares = [jnp.sum(jnp.square(jnp.stack(leaves).astype(jnp.float32))) for leaves in stacks.values()]
    return jnp.sqrt(sum(squares, jnp.float32(0)))


def clip_by_norm(gradients: Tree, norm: jax.Array, limit: float) -> Tree:
    """Gradients of global norm `norm` scaled down to norm `limit` where they exceed it, as torch's clip_grad_norm_."""
    factor = jnp.minimum(1.0, limit / (norm + 1e-6))
    return jax.tree.map(lambda g: g * factor, gradients)


def _chain(settings: OptimizerSettings, decayed: Tree, lr_scale: Tree) -> optax.GradientTransformationExtraArgs:
    weight_decay = optax.add_decayed_weights(settings.weight_decay, mask=decayed)
    match settings.name:
        case "adamw":
            parts = [optax.scale_by_adam(settings.b1, settings.b2, settings.eps), weight_decay]
        case "lars":
            trust_ratio = optax.scale_by_trust_ratio(trust_coefficient=LARS_TRUST_COEFFICIENT)
            parts = [weight_decay, optax.masked(trust_ratio, decayed), optax.trace(settings.momentum)]
        case _:
            parts = [weight_decay, optax.trace(settings.momentum)]
    return optax.chain(*parts, _scale_by_learning_rate(lr_scale))


def _scale_by_learning_rate(lr_scale: Tree) -> optax.GradientTransformationExtraArgs:
    """Descends with a learning rate given at each update, times each parameter's own factor."""

    def update(updates: Tree, state: optax.OptState, params: Tree | None = None, *, learning_rate: jax.Array, **_: Any):
        return jax.tree.map(lambda scale, d: -learning_rate * scale * d, lr_scale, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def _as_dict(chain_state: tuple) -> Tree:
    (stateful,) = (part for part in chain_state if jax.tree.leaves(part))
    return stateful._asdict()


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
