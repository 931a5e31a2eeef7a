"""Layer norm over the channels, with float32 statistics whatever the dtype, and a gradient of its own.

Derived automatically, the gradient materializes a float32 array of the size of the tokens and reads them once more.
This one keeps the two statistics of every token, and computes dx in one pass and the gradients of scale and bias in
another.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32


class LayerNorm(nnx.Module):
    """(x - mean) / sqrt(variance + epsilon) * scale + bias.

    The variance is that of the centered values: mean(x^2) - mean^2 loses digits against PyTorch.
    """

    def __init__(self, width: int, epsilon: float, *, dtype: Any, rngs: nnx.Rngs):
        self.epsilon, self.dtype = epsilon, dtype
        # Two keys, as flax's layer norm takes them and as this one did before: a seed keeps its parameters.
        rngs.params(), rngs.params()
        self.scale = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width))

    def __call__(self, x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        """Normalizes the last axis; the result has the module's dtype."""
        return normalize(x, self.scale[...], self.bias[...], self.epsilon, self.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def normalize(
    x: Float[Array, "*n d"], scale: Float32[Array, " d"], bias: Float32[Array, " d"], epsilon: float, dtype: Any
) -> Float[Array, "*n d"]:
    """The layer norm as a function."""
    return _forward(x, scale, bias, epsilon, dtype)[0]


def _forward(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, dtype: Any) -> tuple[jax.Array, Any]:
    wide = x.astype(jnp.float32)
    mean = wide.mean(axis=-1, keepdims=True)
    centered = wide - mean
    inverse = jax.lax.rsqrt(jnp.square(centered).mean(axis=-1, keepdims=True) + epsilon)
    scale, bias = (jnp.expand_dims(vector, tuple(range(x.ndim - 1))) for vector in (scale, bias))
    return (centered * (inverse * scale) + bias).astype(dtype), (x, mean, inverse, scale)


def _backward(epsilon: float, dtype: Any, kept: Any, gradient: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    # The barrier keeps XLA from deriving the statistics from x again.
    x, mean, inverse, scale = jax.lax.optimization_barrier(kept)
    wide = gradient.astype(jnp.float32)
    normalized = (x.astype(jnp.float32) - mean) * inverse
    scaled = wide * scale
    along = (scaled * normalized).mean(axis=-1, keepdims=True)
    dx = inverse * (scaled - scaled.mean(axis=-1, keepdims=True) - normalized * along)
    tokens = tuple(range(x.ndim - 1))
    return dx.astype(x.dtype), (wide * normalized).sum(axis=tokens), wide.sum(axis=tokens)


normalize.defvjp(_forward, _backward)
