"""From an encoder's taps to feature maps of strides 4, 8, 16 and 32: what dense heads read, for ViT and for Swin.

docs/method.md. Strides are those of the usual patches (16 px for ViT, 4 px for Swin) and scale with them.
"""

import jax
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from localmim_jax.models import blocks
from localmim_jax.models.base import EncoderConfig
from localmim_jax.models.conv_norm import BatchNorm
from localmim_jax.models.norm import LayerNorm
from localmim_jax.models.upsample import Upsample


class ViTPyramid(nnx.Module):
    """The taps' patch tokens, without a norm: up 4x and 2x by transposed convolutions, as they are, and pooled."""

    def __init__(self, config: EncoderConfig, taps: tuple[int, ...], *, rngs: nnx.Rngs):
        width, dtype = config.feature_width(taps[0]), config.dtype
        self.grid, self.num_prefix_tokens = config.feature_grid(taps[0]), config.num_prefix_tokens
        self.up4_first = Upsample(width, width, dtype=dtype, rngs=rngs)
        self.up4_norm = BatchNorm(width, rngs=rngs)
        self.up4_second = Upsample(width, width, dtype=dtype, rngs=rngs)
        self.up2 = Upsample(width, width, dtype=dtype, rngs=rngs)

    @jax.named_scope("pyramid")
    def __call__(
        self, features: tuple[Float[Array, "b _ _"], ...], image_size: tuple[int, int], train: bool = False
    ) -> tuple[Float[Array, "b _ _ _"], ...]:
        """Four maps of the grid times 4, 2, 1 and 1/2 (rounded down), from tokens with the prefix tokens.

        `image_size` (pixels) is the encoder's; `train` makes the batch norm use the batch's statistics.
        """
        del image_size
        patches = [x[:, self.num_prefix_tokens :] for x in features]
        first, second, third, fourth = (rearrange(x, "b (y x) d -> b y x d", y=self.grid[0]) for x in patches)
        first = blocks.gelu(self.up4_norm(self.up4_first(first), train))
        rows, columns = (side // 2 for side in self.grid)
        fourth = rearrange(fourth[:, : 2 * rows, : 2 * columns], "b (y i) (x j) d -> b y i x j d", i=2, j=2)
        return self.up4_second(first), self.up2(second), third, fourth.mean(axis=(2, 4))


class SwinPyramid(nnx.Module):
    """Every stage's tokens after a layer norm of its own."""

    def __init__(self, config: EncoderConfig, taps: tuple[int, ...], *, rngs: nnx.Rngs):
        self.config, self.taps = config, taps
        self.norms = nnx.List(
            [LayerNorm(config.feature_width(tap), config.epsilon, dtype=config.dtype, rngs=rngs) for tap in taps]
        )

    @jax.named_scope("pyramid")
    def __call__(
        self, features: tuple[Float[Array, "b _ _"], ...], image_size: tuple[int, int], train: bool = False
    ) -> tuple[Float[Array, "b _ _ _"], ...]:
        """Four maps, their sides those of the image over the stride, rounded up."""
        del train
        grids = [self.config.feature_grid(tap, image_size) for tap in self.taps]
        return tuple(
            rearrange(norm(x), "b (y x) d -> b y x d", y=grid[0], x=grid[1])
            for norm, x, grid in zip(self.norms, features, grids, strict=True)
        )


class PyramidBackbone(nnx.Module):
    """Images -> four feature maps. `encoder` is what pre-training trains; `pyramid` is new.

    Args:
        config: the encoder as `EncoderConfig.for_dense` gives it.
        taps: layers to read, see `EncoderConfig.pyramid_taps`.
    """

    def __init__(self, config: EncoderConfig, taps: tuple[int, ...] | None = None, *, rngs: nnx.Rngs):
        self.taps = config.pyramid_taps(taps)
        self.encoder = config.make(rngs)
        self.pyramid = config.make_pyramid(self.taps, rngs)

    def feature_maps(
        self, images: Float[Array, "b h w c"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "b _ _ _"], ...]:
        """Four maps, finest first.

        Args:
            images: normalized by mean and standard deviation; any size for Swin, the config's for ViT.
            key: draws the drop path and makes batch norms use the batch's statistics; None evaluates.

        Returns:
            Maps of strides 4, 8, 16 and 32, in the compute dtype.
        """
        features = self.encoder(images, taps=self.taps, key=key)
        return self.pyramid(features, images.shape[1:3], key is not None)
