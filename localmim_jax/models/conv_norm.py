"""A convolution with batch norm and ReLU: what the dense heads are made of.

The batch norm's statistics are those of the global batch, over all devices and hosts: under jit its means are global
ones, which is what synchronized batch norm does. They are float32 and part of the model state.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

EPSILON = 1e-5
MOMENTUM = 0.9  # 1 - torch's 0.1


class BatchNorm(nnx.Module):
    """Normalizes channels over all other axes. The running variance is the unbiased one, as torch keeps it."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        del rngs
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.mean = nnx.BatchStat(jnp.zeros(channels))
        self.var = nnx.BatchStat(jnp.ones(channels))

    @jax.named_scope("batch_norm")
    def __call__(self, x: Float[Array, "*b c"], train: bool) -> Float[Array, "*b c"]:
        """Normalizes in float32, to x's dtype; with `train` by the batch's statistics, which enter the running ones."""
        values = x.astype(jnp.float32)
        if train:
            axes = tuple(range(x.ndim - 1))
            mean = values.mean(axis=axes)
            var = jnp.square(values - self._spread(mean, x.ndim)).mean(axis=axes)
            count = x.size // x.shape[-1]
            unbiased = var * (count / max(count - 1, 1))
            self.mean[...] = MOMENTUM * self.mean[...] + (1 - MOMENTUM) * jax.lax.stop_gradient(mean)
            self.var[...] = MOMENTUM * self.var[...] + (1 - MOMENTUM) * jax.lax.stop_gradient(unbiased)
        else:
            mean, var = self.mean[...], self.var[...]
        factor = self.scale[...] * jax.lax.rsqrt(var + EPSILON)
        shift = self.bias[...] - mean * factor
        return (values * self._spread(factor, x.ndim) + self._spread(shift, x.ndim)).astype(x.dtype)

    @staticmethod
    def _spread(vector: jax.Array, ndim: int) -> jax.Array:
        return vector.reshape((1,) * (ndim - 1) + (-1,))


class ConvNorm(nnx.Module):
    """Convolution without bias, zero-padded to keep its size, then batch norm and ReLU.

    Args:
        width: channels in.
        out: channels out.
        kernel: side of the kernel, odd.
        dtype: of the convolution.
    """

    def __init__(self, width: int, out: int, kernel: int, *, dtype: Any, rngs: nnx.Rngs):
        # He's initialization by fan-out, OpenMMLab's for such a layer.
        init = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")
        self.conv = nnx.Conv(
            width, out, (kernel, kernel), use_bias=False, padding="SAME", dtype=dtype, kernel_init=init, rngs=rngs
        )
        self.norm = BatchNorm(out, rngs=rngs)

    @jax.named_scope("conv_norm")
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w out"]:
        """The same rows and columns; `train` as in `BatchNorm`."""
        return jax.nn.relu(self.norm(self.conv(x), train))
