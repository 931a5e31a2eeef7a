"""[3] One small decoder for each tapped layer: it predicts every cell of its target grid from the visible tokens.

norm -> linear -> mask tokens at the masked places -> fixed positions -> transformer block(s) -> norm -> rescale to the
target's grid -> prediction (docs/method.md). The same class serves ViT and Swin.
"""

import dataclasses
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from localmim_jax.errors import ConfigError
from localmim_jax.method.masking import to_grid
from localmim_jax.models import blocks
from localmim_jax.models.mask import Mask
from localmim_jax.models.norm import LayerNorm
from localmim_jax.models.positions import sincos_2d
from localmim_jax.models.upsample import Upsample, interleave


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """The decoder of one tapped layer.

    Attributes:
        in_width: width of the tapped feature.
        feature_grid: (rows, columns) of the tapped layer.
        target_grid: (rows, columns) of the target; both axes differ from the feature's by the same power of two.
        out_channels: length of a target vector.
        width, num_heads, depth, mlp_ratio: dimensions of the transformer blocks.
        num_prefix_tokens: leading tokens without a place in the image (1 for ViT's class token, 0 for Swin).
        epsilon: layer-norm epsilon.
        prediction_init: "conv" for PyTorch's default of a 1x1 convolution (ViT), "linear" for Xavier (Swin).
        dtype, remat, attention: as in the encoder.
    """

    in_width: int
    feature_grid: tuple[int, int]
    target_grid: tuple[int, int]
    out_channels: int
    width: int = 256
    num_heads: int = 8
    depth: int = 1
    mlp_ratio: float = 4.0
    num_prefix_tokens: int = 1
    epsilon: float = 1e-6
    prediction_init: Literal["conv", "linear"] = "conv"
    dtype: Any = jnp.float32
    remat: bool = False
    attention: Literal["xla", "cudnn"] = "xla"

    def __post_init__(self) -> None:
        if self.num_heads < 1 or self.width % self.num_heads or self.width % 4:
            raise ConfigError(
                f"model.decoder.width {self.width} must be a multiple of 4 and of num_heads {self.num_heads}"
            )
        if self.depth < 0:
            raise ConfigError(f"model.decoder.depth is {self.depth}: choose 0 or more")
        if self.width % 2 ** max(self.log2_scale, 0):
            raise ConfigError(
                f"model.decoder.width {self.width} cannot be halved {self.log2_scale} times on the way from a "
                f"{self.feature_grid} to a {self.target_grid} grid: choose a multiple of {2**self.log2_scale}"
            )

    @property
    def log2_scale(self) -> int:
        """log2 of the target grid over the feature grid: 2 doubles twice, -1 halves once.

        Raises:
            ConfigError: the ratio is not one power of two for both axes.
        """
        (rows, columns), (target_rows, target_columns) = self.feature_grid, self.target_grid
        for log2_scale in range(-10, 11):
            up, down = 2 ** max(log2_scale, 0), 2 ** max(-log2_scale, 0)
            if (target_rows * down, target_columns * down) == (rows * up, columns * up):
                return log2_scale
        raise ConfigError(
            f"a {target_rows}x{target_columns} target grid cannot be reached from a {rows}x{columns} feature grid: "
            "the ratio must be the same power of two on both axes, so choose target cells that are the patch size "
            "times or divided by 1, 2, 4, 8, ... and that divide the image"
        )


class Decoder(nnx.Module):
    """Reconstructs one scale from one tapped layer. Contains its layer norm: only the encoder is transferred."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        self.config = config
        dtype, width = config.dtype, config.width
        block = blocks.BlockConfig(
            width=width,
            num_heads=config.num_heads,
            mlp_ratio=config.mlp_ratio,
            epsilon=config.epsilon,
            dtype=dtype,
            attention=config.attention,
        )
        self.norm = LayerNorm(config.in_width, config.epsilon, dtype=dtype, rngs=rngs)
        self.embed = blocks.linear(config.in_width, width, dtype=dtype, rngs=rngs)
        self.mask_token = nnx.Param(0.02 * jax.random.normal(rngs.params(), (width,)))
        self.blocks = nnx.List([blocks.Block(block, rngs=rngs) for _ in range(config.depth)])
        self.out_norm = LayerNorm(width, config.epsilon, dtype=dtype, rngs=rngs)

        widths = [width // 2**i for i in range(max(config.log2_scale, 0) + 1)]
        self.upsamples = nnx.List([Upsample(w, dtype=dtype, rngs=rngs) for w in widths[:-1]])
        self.upsample_norms = nnx.List([LayerNorm(w, config.epsilon, dtype=dtype, rngs=rngs) for w in widths[1:-1]])
        conv_init = blocks.uniform_fan_in(widths[-1])
        as_conv = config.prediction_init == "conv"
        self.predict = nnx.Linear(
            widths[-1],
            config.out_channels,
            dtype=dtype,
            kernel_init=conv_init if as_conv else blocks.xavier_uniform,
            bias_init=conv_init if as_conv else nnx.initializers.zeros_init(),
            rngs=rngs,
        )

    def __call__(self, feature: Float[Array, "b n d"], mask: Mask) -> Float[Array, "b cells c"]:
        """Predicts every cell of the target grid, row-major, from the prefix tokens and the visible ones."""
        config = self.config
        x = self.embed(self.norm(feature))
        prefix, visible = x[:, : config.num_prefix_tokens], x[:, config.num_prefix_tokens :]
        tokens = rearrange(to_grid(visible, mask, self.mask_token[...]), "b y x d -> b (y x) d")
        tokens = tokens + jnp.asarray(sincos_2d(config.feature_grid, config.width), config.dtype)[None]
        x = jnp.concatenate([prefix, tokens], axis=1)
        for i, block in enumerate(self.blocks):
            with jax.named_scope(f"block_{i + 1:02d}"):
                x = blocks.run_block(block, config.remat, x)
        x = self.out_norm(x)[:, config.num_prefix_tokens :]
        x = self.rescale(rearrange(x, "b (y x) d -> b y x d", y=config.feature_grid[0]))
        with jax.named_scope("prediction"):
            # The prediction of a pixel depends on it alone, so the pixels move after it, when they are smaller.
            return rearrange(interleave(self._predictions(x)), "b y x c -> b (y x) c")

    @jax.named_scope("rescale")
    def rescale(self, x: Float[Array, "b y x d"]) -> Float[Array, "b _ _ p _"]:
        """From the feature grid to the target grid: upsampled with half the channels each time, or mean-pooled.

        The p pixels that the last upsampling makes of one are still side by side, see `interleave`; else p is 1.
        """
        for upsample, norm in zip(self.upsamples, self.upsample_norms, strict=False):
            x = blocks.gelu(norm(upsample(x)))
        if self.upsamples:
            return self.upsamples[-1].side_by_side(x)
        factor = 2 ** max(-self.config.log2_scale, 0)
        if factor > 1:
            x = rearrange(x, "b (y i) (x j) d -> b y i x j d", i=factor, j=factor).mean(axis=(2, 4))
        return x[:, :, :, None]

    def _predictions(self, x: Float[Array, "*b d"]) -> Float[Array, "*b c"]:
        """`predict`. In 16 bits with channels of 0 up to a multiple of 8, which a GPU's products need.

        XLA would add them too, but to the finished gradient, in a kernel of its own.
        """
        channels = self.config.out_channels
        extra = -channels % 8 if jnp.dtype(self.config.dtype).itemsize == 2 else 0
        if extra == 0:
            return self.predict(x)
        kernel = jnp.pad(self.predict.kernel[...].astype(x.dtype), ((0, 0), (0, extra)))
        bias = jnp.pad(cast(nnx.Param, self.predict.bias)[...].astype(x.dtype), (0, extra))
        return (x @ kernel + bias.reshape((1,) * (x.ndim - 1) + (-1,)))[..., :channels]
