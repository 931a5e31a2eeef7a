"""The pure-dict view of a module: split once, merged inside `jax.jit`, leaves named by path.

A module's arrays are nested dicts with string keys (`params["encoder"]["blocks"]["0"]["norm1"]["scale"]`), which
jit, optax and orbax all understand. Paths join the keys with "/".
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx, traverse_util

Tree = dict[str, Any]


def split(make_model: Callable[[nnx.Rngs], nnx.Module]) -> tuple[Any, Tree, Tree]:
    """The graph definition and the abstract parameters and model state (batch-norm statistics) of a model.

    Nothing is allocated: leaves are `jax.ShapeDtypeStruct`.
    """
    parts: Any = nnx.split(nnx.eval_shape(lambda: make_model(nnx.Rngs(0))), nnx.Param, ...)
    graphdef, params, model_state = parts
    return graphdef, _string_keys(nnx.to_pure_dict(params)), _string_keys(nnx.to_pure_dict(model_state))


def initialize(make_model: Callable[[nnx.Rngs], nnx.Module], key: jax.Array) -> tuple[Tree, Tree]:
    """Randomly initialized (params, model_state) of a model. Meant to run inside `jax.jit`."""
    parts: Any = nnx.split(make_model(nnx.Rngs(key)), nnx.Param, ...)
    _, params, model_state = parts
    return _string_keys(nnx.to_pure_dict(params)), _string_keys(nnx.to_pure_dict(model_state))


def merge(graphdef: Any, params: Tree, model_state: Tree | None = None) -> Any:
    """The module with these arrays, of the class that was split. Inside `jax.jit` it costs trace time only."""
    return nnx.merge(graphdef, _integer_keys(params), _integer_keys(model_state or {}))


def model_state_of(model: nnx.Module) -> Tree:
    """Everything in a module that is not a parameter (batch-norm statistics), as a pure dict."""
    return _string_keys(nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param))))


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """{"a": {"b": x}} -> {"a/b": x}, in the tree's own order, without empty dicts."""
    return traverse_util.flatten_dict(dict(tree), sep="/")


def unflatten(flat: Mapping[str, Any]) -> Tree:
    """The inverse of `flatten`."""
    return traverse_util.unflatten_dict(dict(flat), sep="/")


def map_with_path(function: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """`function(path, leaf, *other_leaves)` over a nested dict and others of the same structure."""
    flats = [flatten(other) for other in rest]
    return unflatten({path: function(path, leaf, *(f[path] for f in flats)) for path, leaf in flatten(tree).items()})


def _string_keys(tree: Any) -> Any:
    return {str(key): _string_keys(value) for key, value in tree.items()} if isinstance(tree, Mapping) else tree


def _integer_keys(tree: Any) -> Any:
    if not isinstance(tree, Mapping):
        return tree
    return {int(key) if key.isdigit() else key: _integer_keys(value) for key, value in tree.items()}
