"""Rows to other places and back, without scatters."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped


@jax.custom_vjp
def move(x: Shaped[Array, "m r p c"], source: Int[Array, "m q"], target: Int[Array, "m p"]) -> Shaped[Array, "m r q c"]:
    """Gathers rows, per mask: out[i, :, j] = x[i, :, source[i, j]], zeros where source[i, j] is beyond x.

    The gradient is a gather as well: it needs no atomic adds, which are slow and add up in any order.

    Args:
        x: the rows; rows of one mask move alike.
        source: each row of x at most once.
        target: the inverse: where each row went, q or more where it went nowhere.
    """
    return jax.vmap(lambda x, source: jnp.take(x, source, axis=1, mode="fill", fill_value=0))(x, source)


def _move_forward(x: jax.Array, source: jax.Array, target: jax.Array):
    return move(x, source, target), (source, target)


def _move_backward(residuals: tuple[jax.Array, jax.Array], gradient: jax.Array):
    source, target = residuals
    return move(gradient, target, source), None, None


move.defvjp(_move_forward, _move_backward)
