"""The parts of a Swin's stages: attention within windows, the block around it, and patch merging."""

from typing import Any, cast

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, Float32

from localmim_jax.models import blocks
from localmim_jax.models.norm import LayerNorm
from localmim_jax.models.windows import DenseWindows, Layout, attend_in_groups


class WindowAttention(blocks.AttentionProjections):
    """Self-attention within the groups of a layout, with a learned bias for every relative position."""

    def __init__(self, config: blocks.BlockConfig, window: int, *, rngs: nnx.Rngs):
        super().__init__(config, rngs=rngs)
        init = nnx.initializers.truncated_normal(0.02)
        table = init(rngs.params(), ((2 * window - 1) ** 2, config.num_heads), jnp.float32)
        self.relative_position_bias = nnx.Param(table)

    def __call__(self, x: Float[Array, "b n d"], layout: Layout) -> Float[Array, "b n d"]:
        """Attends within the groups."""
        q, k, v = self._packed(x, layout)
        return self.proj(layout.unpack(attend_in_groups(q, k, v, layout.bias(self.relative_position_bias[...]))))

    def window_weights(self, x: Float[Array, "b n d"], layout: DenseWindows) -> Float32[Array, "b g heads s s"]:
        """The attention maps of every window, query by key."""
        q, k, _ = self._packed(x, layout)
        return blocks.attention_weights(q, k, layout.bias(self.relative_position_bias[...]))[0]

    def _packed(
        self, x: Float[Array, "b n c"], layout: Layout
    ) -> tuple[Float[Array, "m r g s heads d"], Float[Array, "m r g s heads d"], Float[Array, "m r g s heads d"]]:
        """Queries, keys and values in the layout's groups."""
        return self.split_heads(layout.pack(self.qkv(x), cast(nnx.Param, self.qkv.bias)[...].astype(x.dtype)))


class SwinBlock(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); attention stays within windows."""

    def __init__(self, config: blocks.BlockConfig, window: int, *, rngs: nnx.Rngs):
        epsilon2 = config.epsilon if config.epsilon2 is None else config.epsilon2
        self.norm1 = LayerNorm(config.width, config.epsilon, dtype=config.dtype, rngs=rngs)
        self.attention = WindowAttention(config, window, rngs=rngs)
        self.norm2 = LayerNorm(config.width, epsilon2, dtype=config.dtype, rngs=rngs)
        self.mlp = blocks.Mlp(config, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b n d"], layout: Layout, drop: blocks.DropPath | None = None
    ) -> Float[Array, "b n d"]:
        """Transforms tokens; attention stays within the layout's groups."""
        drop1, drop2 = (None, None) if drop is None else drop.branches()
        with jax.named_scope("attention"):
            x = x + blocks.drop_path(self.attention(self.norm1(x), layout), drop1)
        with jax.named_scope("mlp"):
            return x + blocks.drop_path(self.mlp(self.norm2(x)), drop2)


class PatchMerging(nnx.Module):
    """Joins each 2x2 neighborhood into one token of twice the channels; an odd grid is zero-padded."""

    def __init__(self, width: int, epsilon: float, *, dtype: Any, rngs: nnx.Rngs):
        self.norm = LayerNorm(4 * width, epsilon, dtype=dtype, rngs=rngs)
        self.reduction = blocks.linear(4 * width, 2 * width, use_bias=False, dtype=dtype, rngs=rngs)

    @jax.named_scope("merging")
    def __call__(self, x: Float[Array, "b y x d"]) -> Float[Array, "b (y+1)//2 (x+1)//2 2*d"]:
        """Half the rows and columns, rounded up."""
        x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
        # The standard order (0, 0), (1, 0), (0, 1), (1, 1) in (row, column): the row varies fastest.
        x = rearrange(x, "b (y i) (x j) d -> b y x (j i d)", i=2, j=2)
        return self.reduction(self.norm(x))
