"""The feature pyramid network: five levels of one width from the backbone's four maps, mixed from the top down.

Lin et al., 2017; supplement, "Object detection and segmentation on COCO".
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from localmim_jax.models.blocks import xavier_uniform

STRIDES = (4, 8, 16, 32, 64)  # pixels per cell of each level; the last level serves the RPN alone


class FPN(nnx.Module):
    """Maps of strides 4, 8, 16, 32 -> levels of strides 4, 8, 16, 32, 64.

    Args:
        widths: channels of the backbone's maps.
        channels: channels of every level.
        dtype: compute dtype.
    """

    def __init__(self, widths: tuple[int, ...], channels: int, *, dtype: Any, rngs: nnx.Rngs):
        def conv(inputs: int, size: int) -> nnx.Conv:
            return nnx.Conv(inputs, channels, (size, size), dtype=dtype, kernel_init=xavier_uniform, rngs=rngs)

        self.lateral = nnx.List([conv(width, 1) for width in widths])
        self.output = nnx.List([conv(channels, 3) for _ in widths])

    @jax.named_scope("fpn")
    def __call__(self, maps: tuple[Float[Array, "b _h _w _d"], ...]) -> tuple[Float[Array, "b _h _w _c"], ...]:
        """Levels of the maps' sizes, and one more that takes every second cell of the coarsest."""
        levels = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        for i in reversed(range(len(levels) - 1)):
            levels[i] = levels[i] + _upsample_nearest(levels[i + 1], (levels[i].shape[1], levels[i].shape[2]))
        levels = [output(x) for output, x in zip(self.output, levels, strict=True)]
        return (*levels, levels[-1][:, ::2, ::2])


def _upsample_nearest(x: Float[Array, "b _h _w c"], size: tuple[int, int]) -> Float[Array, "b {size[0]} {size[1]} c"]:
    """Nearest-neighbor upsampling by two, cropped to an odd `size`."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)[:, : size[0], : size[1]]
