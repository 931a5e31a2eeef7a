"""The patch embedding of every encoder."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from localmim_jax.models import blocks


class PatchEmbed(nnx.Module):
    """The linear projection of flattened patches, applied to the visible ones only."""

    def __init__(self, patch_size: int, in_channels: int, width: int, *, dtype: Any, rngs: nnx.Rngs):
        p, c, d = patch_size, in_channels, width
        self.dtype = dtype
        kernel = blocks.xavier_uniform(rngs.params(), (p * p * c, d), jnp.float32)
        self.kernel = nnx.Param(kernel.reshape(p, p, c, d))
        self.bias = nnx.Param(blocks.uniform_fan_in(p * p * c)(rngs.params(), (d,)))

    def __call__(self, images: jax.Array, keep: jax.Array | None) -> jax.Array:
        """Embeds patches.

        Args:
            images: [b, h, w, c], both sides multiples of the patch.
            keep: int32 [m, k], the patches to embed, list i for images i * b / m to (i + 1) * b / m; None for all.

        Returns:
            [b, k, d].
        """
        p, _, c, d = self.kernel.shape
        b, h, w, _ = images.shape
        patches = images.astype(self.dtype).reshape(b, h // p, p, w // p, p, c).transpose(0, 1, 3, 2, 4, 5)
        patches = patches.reshape(b, -1, p * p * c)
        if keep is not None:
            m, k = keep.shape
            patches = patches.reshape(m, b // m, -1, p * p * c)
            patches = jnp.take_along_axis(patches, keep[:, None, :, None], axis=2).reshape(b, k, p * p * c)
        kernel = self.kernel[...].astype(self.dtype).reshape(p * p * c, d)
        return patches @ kernel + self.bias[...].astype(self.dtype).reshape(1, 1, d)
