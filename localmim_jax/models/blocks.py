"""The transformer block that every encoder and decoder is made of, with the initializers of the paper's release.

Parameters are float32; `dtype` is what activations are computed in. Softmax and layer-norm statistics are float32
whatever the dtype. Randomness is an explicit key, and `None` means deterministic.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float, Float32, PRNGKeyArray

from localmim_jax.models.norm import LayerNorm
from localmim_jax.models.positions import grid_bias, relative_rows

# (weights, group, coordinates) -> anything small. Weights are attention maps, float32 [b, windows, heads, n, n], query
# by key, rows summing to 1. `group` int32 [windows, n]: places with equal numbers attend to one another; -1 is no place
# of the image (class token, padding). `coordinates` int32 [windows, n, 2]: (row, column) of a place in tokens.
Measure = Callable[[jax.Array, np.ndarray, np.ndarray], Any]

xavier_uniform = nnx.initializers.xavier_uniform()


def uniform_fan_in(fan_in: int) -> nnx.Initializer:
    """PyTorch's default for convolutions, weight and bias alike: uniform within +-1 / sqrt(fan_in)."""
    bound = fan_in**-0.5

    def init(key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any = jnp.float32, out_sharding: Any = None) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


@dataclasses.dataclass(frozen=True)
class BlockConfig:
    """One pre-norm transformer block.

    Attributes:
        width: channels of a token.
        num_heads: attention heads; divides width.
        mlp_ratio: hidden width of the MLP over width.
        epsilon: layer-norm epsilon.
        epsilon2: epsilon of the second layer norm; None for the same (1e-5 in the release's fine-tuning Swin).
        dtype: compute dtype.
        attention: "xla", or "cudnn" for the fused kernel (bf16 or fp16 on an NVIDIA GPU).
        relative_grid: (rows, columns) of the patches between which a learned bias depends on their relative position,
            a class token being in front of them; None for no bias.
        layer_scale: whether each branch is multiplied by a learned vector before it is added.
    """

    width: int
    num_heads: int
    mlp_ratio: float = 4.0
    epsilon: float = 1e-6
    epsilon2: float | None = None
    dtype: Any = jnp.float32
    attention: Literal["xla", "cudnn"] = "xla"
    relative_grid: tuple[int, int] | None = None
    layer_scale: bool = False


def linear(in_width: int, out_width: int, *, dtype: Any, rngs: nnx.Rngs, use_bias: bool = True) -> nnx.Linear:
    """A Linear as the paper initializes it: Xavier-uniform kernel, bias 0."""
    return nnx.Linear(in_width, out_width, use_bias=use_bias, dtype=dtype, kernel_init=xavier_uniform, rngs=rngs)


class DropPath(NamedTuple):
    """Stochastic depth of one block.

    Attributes:
        key: draws which examples keep a branch.
        keep: the share that does, in (0, 1]; a number, or an array where blocks run in a loop.
    """

    key: PRNGKeyArray
    keep: float | Float32[Array, ""]

    def branches(self) -> "tuple[DropPath, DropPath]":
        """One for each of the block's two branches."""
        first, second = jax.random.split(self.key)
        return DropPath(first, self.keep), DropPath(second, self.keep)


def drop_path(x: Float[Array, " b *n"], drop: DropPath | None) -> Float[Array, " b *n"]:
    """Zeroes whole examples (first axis), all but a share of `keep`, and scales the others up. None drops nothing."""
    if drop is None or (isinstance(drop.keep, float | int) and drop.keep == 1):
        return x
    kept = jax.random.bernoulli(drop.key, drop.keep, (x.shape[0],) + (1,) * (x.ndim - 1))
    return jnp.where(kept, x / jnp.asarray(drop.keep, x.dtype), jnp.zeros_like(x))


@jax.custom_vjp
def gelu(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """x times the normal distribution function at x: the exact GELU, computed in float32 whatever the dtype.

    By erf, and with a gradient that keeps nothing but x: jax.nn.gelu goes by erfc, two polynomials of which one is
    thrown away, and its intermediates would stay in memory between forward and backward.
    """
    wide = x.astype(jnp.float32)
    return (wide * _normal_distribution(wide)).astype(x.dtype)


def _normal_distribution(x: Float32[Array, "*n"]) -> Float32[Array, "*n"]:
    return 0.5 * (1.0 + jax.lax.erf(x * 2**-0.5))


def _gelu_forward(x: Float[Array, "*n"]) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    return gelu(x), x


def _gelu_backward(x: Float[Array, "*n"], gradient: Float[Array, "*n"]) -> tuple[Float[Array, "*n"]]:
    # The barrier keeps XLA from finding the forward's erf again, and storing it in between.
    wide = jax.lax.optimization_barrier(x).astype(jnp.float32)
    slope = _normal_distribution(wide) + wide * jnp.exp(-0.5 * jnp.square(wide)) * (2 * math.pi) ** -0.5
    return ((gradient.astype(jnp.float32) * slope).astype(x.dtype),)


gelu.defvjp(_gelu_forward, _gelu_backward)


def attention_weights(
    q: Float[Array, "*b n heads d"], k: Float[Array, "*b n heads d"], bias: Float32[Array, "..."] | float = 0.0
) -> Float32[Array, "*b heads n n"]:
    """softmax(q k / sqrt(d) + bias) over the keys. Logits and softmax are float32 whatever the dtype of q and k.

    Args:
        q, k: queries and keys.
        bias: broadcastable to the weights, query by key.
    """
    logits = jnp.einsum("...qhd,...khd->...hqk", q, k, preferred_element_type=jnp.float32)
    return jax.nn.softmax(logits * q.shape[-1] ** -0.5 + bias, axis=-1)


def attend(
    q: Float[Array, "b n heads d"],
    k: Float[Array, "b n heads d"],
    v: Float[Array, "b n heads d"],
    bias: Float[Array, "#b #heads n n"] | None = None,
    mask: Bool[Array, "#b #heads n n"] | None = None,
    implementation: Literal["xla", "cudnn"] = "xla",
) -> Float[Array, "b n heads d"]:
    """softmax(q k / sqrt(d) + bias) v, with float32 softmax, in the dtype of v.

    Args:
        q, k, v: queries, keys and values.
        bias: added to the logits, query by key.
        mask: True where a query may attend to a key.
        implementation: "cudnn" is the fused kernel: bf16 or fp16 on an NVIDIA GPU, d a multiple of 8.
    """
    b, n = q.shape[:2]
    lengths = None
    if implementation == "cudnn":
        bias = None if bias is None else bias.astype(q.dtype)  # which the kernel asks for
        if n % 2:  # it trains on even lengths only: a last place that nobody attends to
            q, k, v = (jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))) for x in (q, k, v))
            bias, mask = (None if x is None else jnp.pad(x, ((0, 0), (0, 0), (0, 1), (0, 1))) for x in (bias, mask))
            lengths = jnp.full((b,), n, jnp.int32)
    out = jax.nn.dot_product_attention(
        q,
        k,
        v,
        bias=bias,
        mask=mask,
        query_seq_lengths=lengths,
        key_value_seq_lengths=lengths,
        implementation=implementation,
    )
    return out[:, :n]


class AttentionProjections(nnx.Module):
    """The two linear layers of multi-head self-attention: one fused qkv projection, and the output's."""

    def __init__(self, config: BlockConfig, *, rngs: nnx.Rngs):
        self.num_heads = config.num_heads
        self.qkv = linear(config.width, 3 * config.width, dtype=config.dtype, rngs=rngs)
        self.proj = linear(config.width, config.width, dtype=config.dtype, rngs=rngs)

    def split_heads(
        self, qkv: Float[Array, "*b n c"]
    ) -> tuple[
        Float[Array, "*b n {self.num_heads} d"],
        Float[Array, "*b n {self.num_heads} d"],
        Float[Array, "*b n {self.num_heads} d"],
    ]:
        """Queries, keys and values from the output of `qkv`, whose c is 3 * heads * d."""
        qkv = rearrange(qkv, "... n (three heads d) -> ... n three heads d", three=3, heads=self.num_heads)
        return qkv[..., 0, :, :], qkv[..., 1, :, :], qkv[..., 2, :, :]


class Attention(AttentionProjections):
    """Multi-head self-attention over all tokens."""

    def __init__(self, config: BlockConfig, *, rngs: nnx.Rngs):
        super().__init__(config, rngs=rngs)
        self.implementation = config.attention
        self.relative_grid = config.relative_grid
        if config.relative_grid is not None:
            table = jnp.zeros((relative_rows(config.relative_grid), config.num_heads), jnp.float32)
            self.relative_position_bias = nnx.Param(table)

    def __call__(
        self,
        x: Float[Array, "b n d"],
        bias: Float[Array, "#b #heads n n"] | None = None,
        mask: Bool[Array, "#b #heads n n"] | None = None,
    ) -> Float[Array, "b n d"]:
        """Attends within the n tokens.

        Args:
            x: the tokens.
            bias: added to the logits, query by key.
            mask: True where a query (row) may attend to a key (column).
        """
        q, k, v = self.split_heads(self.qkv(x))
        if self.relative_grid is not None:
            own = grid_bias(self.relative_position_bias[...], self.relative_grid)[None]
            bias = own if bias is None else bias + own
        out = attend(q, k, v, bias, mask, self.implementation)
        return self.proj(rearrange(out, "b n heads d -> b n (heads d)"))

    def weights(self, x: Float[Array, "b n d"]) -> Float32[Array, "b {self.num_heads} n n"]:
        """The attention maps of a whole sequence, query by key: what `__call__` weighs by."""
        q, k, _ = self.split_heads(self.qkv(x))
        return attention_weights(q, k)


class Mlp(nnx.Module):
    """Two linear layers with an exact (erf) GELU between them."""

    def __init__(self, config: BlockConfig, *, rngs: nnx.Rngs):
        hidden = int(config.width * config.mlp_ratio)
        self.fc1 = linear(config.width, hidden, dtype=config.dtype, rngs=rngs)
        self.fc2 = linear(hidden, config.width, dtype=config.dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        return self.fc2(gelu(self.fc1(x)))


class Block(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); with `layer_scale` each branch times a learned vector."""

    def __init__(self, config: BlockConfig, *, rngs: nnx.Rngs):
        epsilon2 = config.epsilon if config.epsilon2 is None else config.epsilon2
        self.norm1 = LayerNorm(config.width, config.epsilon, dtype=config.dtype, rngs=rngs)
        self.attention = Attention(config, rngs=rngs)
        self.norm2 = LayerNorm(config.width, epsilon2, dtype=config.dtype, rngs=rngs)
        self.mlp = Mlp(config, rngs=rngs)
        self.layer_scale = config.layer_scale
        if config.layer_scale:
            self.scale1 = nnx.Param(jnp.ones(config.width))
            self.scale2 = nnx.Param(jnp.ones(config.width))

    def __call__(
        self,
        x: Float[Array, "b n d"],
        bias: Float[Array, "#b #heads n n"] | None = None,
        mask: Bool[Array, "#b #heads n n"] | None = None,
        drop: DropPath | None = None,
    ) -> Float[Array, "b n d"]:
        """Transforms tokens; `bias` and `mask` as in `Attention`."""
        drop1, drop2 = (None, None) if drop is None else drop.branches()
        with jax.named_scope("attention"):
            branch = self.attention(self.norm1(x), bias, mask)
            if self.layer_scale:
                branch = branch * self.scale1[...].astype(branch.dtype).reshape(1, 1, -1)
            x = x + drop_path(branch, drop1)
        with jax.named_scope("mlp"):
            branch = self.mlp(self.norm2(x))
            if self.layer_scale:
                branch = branch * self.scale2[...].astype(branch.dtype).reshape(1, 1, -1)
            return x + drop_path(branch, drop2)


def run_block(block: nnx.Module, remat: bool, *args: Any) -> Float[Array, "b n d"]:
    """`block(*args)`; with remat its activations are recomputed in the backward pass instead of kept."""
    return jax.checkpoint(lambda *inputs: block(*inputs))(*args) if remat else block(*args)
