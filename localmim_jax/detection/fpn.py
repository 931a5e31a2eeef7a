"""The feature pyramid network: five levels of one width from a backbone's four, each seeing what the coarser ones saw.

Lin et al., 2017; the supplement's "Object detection and segmentation on COCO". NHWC.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from localmim_jax.models.blocks import xavier_uniform

STRIDES = (4, 8, 16, 32, 64)  # pixels per cell of the levels; the last one only proposes regions


class FPN(nnx.Module):
    """Strides 4, 8, 16, 32 -> strides 4, 8, 16, 32, 64.

    Args:
        widths: channels of the backbone's maps.
        channels: of every level.
        dtype: compute dtype.
    """

    def __init__(self, widths: tuple[int, ...], channels: int, *, dtype: Any, rngs: nnx.Rngs):
        def conv(inputs: int, size: int) -> nnx.Conv:
            return nnx.Conv(inputs, channels, (size, size), dtype=dtype, kernel_init=xavier_uniform, rngs=rngs)

        self.lateral = nnx.List([conv(width, 1) for width in widths])
        self.output = nnx.List([conv(channels, 3) for _ in widths])

    def __call__(self, maps: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        """[b, h / s, w / s, width] at strides s -> [b, h / s, w / s, channels], and one level of twice the last stride.

        The last level takes every second cell of the one before it.
        """
        levels = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        for i in reversed(range(len(levels) - 1)):
            levels[i] = levels[i] + _double(levels[i + 1], (levels[i].shape[1], levels[i].shape[2]))
        levels = [output(x) for output, x in zip(self.output, levels, strict=True)]
        return (*levels, levels[-1][:, ::2, ::2])


def _double(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Nearest neighbor, twice as large, cut to `size` where that is odd."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)[:, : size[0], : size[1]]
