"""The 2x2 transposed convolution of decoders, feature pyramids and mask heads."""

from typing import Any

import jax
from flax import nnx

from localmim_jax.models import blocks


class Upsample(nnx.Module):
    """A transposed 2x2 convolution of stride 2: [b, r, c, d] -> [b, 2r, 2c, out], d / 2 channels unless told."""

    def __init__(self, width: int, out: int | None = None, *, dtype: Any, rngs: nnx.Rngs):
        out = width // 2 if out is None else out
        init = blocks.uniform_fan_in(out * 4)
        self.dtype = dtype
        self.kernel = nnx.Param(init(rngs.params(), (width, 2, 2, out)))
        self.bias = nnx.Param(init(rngs.params(), (out,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        b, rows, columns, _ = x.shape
        width, _, _, out = self.kernel.shape
        x = x @ self.kernel[...].astype(self.dtype).reshape(width, 4 * out)
        x = x.reshape(b, rows, columns, 2, 2, out).transpose(0, 1, 3, 2, 4, 5)
        return x.reshape(b, 2 * rows, 2 * columns, out) + self.bias[...].astype(self.dtype).reshape(1, 1, 1, out)
