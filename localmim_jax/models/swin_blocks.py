"""The parts of a Swin's stages: attention within windows, the block around it, and patch merging."""

from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import nnx

from localmim_jax.models import blocks
from localmim_jax.models.windows import DenseWindows, Layout, attend


class WindowAttention(blocks.AttentionProjections):
    """Self-attention within the groups of a layout, with a learned bias for every relative position."""

    def __init__(self, config: blocks.BlockConfig, window: int, *, rngs: nnx.Rngs):
        super().__init__(config, rngs=rngs)
        init = nnx.initializers.truncated_normal(0.02)
        table = init(rngs.params(), ((2 * window - 1) ** 2, config.num_heads), jnp.float32)
        self.relative_position_bias = nnx.Param(table)

    def __call__(self, x: jax.Array, layout: Layout) -> jax.Array:
        """[b, n, d] -> [b, n, d]."""
        q, k, v = self._packed(x, layout)
        return self.proj(layout.unpack(attend(q, k, v, layout.bias(self.relative_position_bias[...]))))

    def window_weights(self, x: jax.Array, layout: DenseWindows) -> jax.Array:
        """The attention maps of every window, float32 [b, windows, heads, window^2, window^2], query by key."""
        q, k, _ = self._packed(x, layout)
        return blocks.attention_weights(q, k, layout.bias(self.relative_position_bias[...]))[0]

    def _packed(self, x: jax.Array, layout: Layout) -> tuple[jax.Array, jax.Array, jax.Array]:
        """[b, n, d] -> queries, keys and values in the layout's groups, [m, b / m, g, s, heads, d / heads] each."""
        return self.split_heads(layout.pack(self.qkv(x), cast(nnx.Param, self.qkv.bias)[...].astype(x.dtype)))


class SwinBlock(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); attention stays within windows."""

    def __init__(self, config: blocks.BlockConfig, window: int, *, drop_path: float, rngs: nnx.Rngs):
        epsilon2 = config.epsilon if config.epsilon2 is None else config.epsilon2
        self.drop_path = drop_path
        self.norm1 = blocks.layer_norm(config.width, config.epsilon, dtype=config.dtype, rngs=rngs)
        self.attention = WindowAttention(config, window, rngs=rngs)
        self.norm2 = blocks.layer_norm(config.width, epsilon2, dtype=config.dtype, rngs=rngs)
        self.mlp = blocks.Mlp(config, rngs=rngs)

    def __call__(self, x: jax.Array, layout: Layout, key: jax.Array | None = None) -> jax.Array:
        """[b, n, d] -> [b, n, d]; `key` draws the drop path, None means none."""
        key1, key2 = (None, None) if key is None else jax.random.split(key)
        x = x + blocks.drop_path(self.attention(self.norm1(x), layout), self.drop_path, key1)
        return x + blocks.drop_path(self.mlp(self.norm2(x)), self.drop_path, key2)


class PatchMerging(nnx.Module):
    """Joins each 2x2 neighborhood into one token of twice the channels; an odd grid is zero-padded."""

    def __init__(self, width: int, epsilon: float, *, dtype: Any, rngs: nnx.Rngs):
        self.norm = blocks.layer_norm(4 * width, epsilon, dtype=dtype, rngs=rngs)
        self.reduction = blocks.linear(4 * width, 2 * width, use_bias=False, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b, rows, columns, d] -> [b, rows / 2, columns / 2, 2 d], rounded up."""
        b, rows, columns, d = x.shape
        x = jnp.pad(x, ((0, 0), (0, rows % 2), (0, columns % 2), (0, 0)))
        x = x.reshape(b, (rows + 1) // 2, 2, (columns + 1) // 2, 2, d)
        # The standard order (0, 0), (1, 0), (0, 1), (1, 1) in (row, column): the row varies fastest.
        x = x.transpose(0, 1, 3, 4, 2, 5).reshape(b, x.shape[1], x.shape[3], 4 * d)
        return self.reduction(self.norm(x))
