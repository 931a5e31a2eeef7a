"""The 2x2 transposed convolution of decoders, feature pyramids and mask heads."""

from typing import Any

import jax
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

    @jax.named_scope("upsample")
    def __call__(self, x: Float[Array, "b y x d"]) -> Float[Array, "b 2*y 2*x out"]:
        """Twice the rows and columns."""
        x = x @ rearrange(self.kernel[...].astype(self.dtype), "d i j out -> d (i j out)")
        x = rearrange(x, "b y x (i j out) -> b (y i) (x j) out", i=2, j=2)
        return x + self.bias[...].astype(self.dtype).reshape(1, 1, 1, -1)
