"""The 2x2 transposed convolution of decoders, feature pyramids and mask heads."""

from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from localmim_jax.models import blocks


class Upsample(nnx.Module):
    """A transposed 2x2 convolution of stride 2.

    Args:
        width: channels in.
        out: channels out; None for half of them.
        dtype: compute dtype; parameters are float32.
    """

    def __init__(self, width: int, out: int | None = None, *, dtype: Any, rngs: nnx.Rngs):
        out = width // 2 if out is None else out
        init = blocks.uniform_fan_in(out * 4)
        self.dtype = dtype
        self.kernel = nnx.Param(init(rngs.params(), (width, 2, 2, out)))
        self.bias = nnx.Param(init(rngs.params(), (out,)))

    def __call__(self, x: Float[Array, "b y x d"]) -> Float[Array, "b 2*y 2*x out"]:
        """Twice the rows and columns."""
        return interleave(self.side_by_side(x))

    @jax.named_scope("upsample")
    def side_by_side(self, x: Float[Array, "b y x d"]) -> Float[Array, "b y x 4 out"]:
        """The four pixels that each pixel becomes, row-major; not yet moved to their rows and columns."""
        kernel = rearrange(self.kernel[...].astype(self.dtype), "d i j out -> d (i j out)")
        # One vector, as a product takes it in; one bias for each of the four would be a tensor of the output's size.
        bias = jnp.tile(self.bias[...].astype(self.dtype), 4).reshape(1, 1, 1, -1)
        return rearrange(x @ kernel + bias, "b y x (four out) -> b y x four out", four=4)


@jax.named_scope("interleave")
def interleave(x: Float[Array, "b y x p d"]) -> Float[Array, "b _ _ d"]:
    """p pixels side by side, a square, to their rows and columns: 1 changes nothing, 4 doubles the sides."""
    side = {1: 1, 4: 2}[x.shape[3]]
    return rearrange(x, "b y x (i j) d -> b (y i) (x j) d", i=side, j=side)
