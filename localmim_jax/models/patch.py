"""The patch embedding of every encoder."""

from typing import Any

import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, Int

from localmim_jax.models import blocks


class PatchEmbed(nnx.Module):
    """The linear projection of flattened patches, applied to the visible ones only."""

    def __init__(self, patch_size: int, in_channels: int, width: int, *, dtype: Any, rngs: nnx.Rngs):
        p, c, d = patch_size, in_channels, width
        self.dtype = dtype
        kernel = blocks.xavier_uniform(rngs.params(), (p * p * c, d), jnp.float32)
        self.kernel = nnx.Param(kernel.reshape(p, p, c, d))
        self.bias = nnx.Param(blocks.uniform_fan_in(p * p * c)(rngs.params(), (d,)))

    def __call__(self, images: Float[Array, "b h w c"], keep: Int[Array, "m k"] | None) -> Float[Array, "b n d"]:
        """Embeds patches.

        Args:
            images: both sides are multiples of the patch.
            keep: the patches to embed, list i for images i * b / m to (i + 1) * b / m; None for all.
        """
        kernel = rearrange(self.kernel[...].astype(self.dtype), "i j c d -> (i j c) d")
        p, d = self.kernel.shape[1], kernel.shape[1]
        patches = rearrange(images.astype(self.dtype), "b (y i) (x j) c -> b (y x) (i j c)", i=p, j=p)
        if keep is not None:
            patches = rearrange(patches, "(m r) n c -> m r n c", m=len(keep))
            patches = jnp.take_along_axis(patches, keep[:, None, :, None], axis=2)
            patches = rearrange(patches, "m r k c -> (m r) k c")
        return patches @ kernel + self.bias[...].astype(self.dtype).reshape(1, 1, d)
