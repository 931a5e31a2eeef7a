"""From an encoder's taps to feature maps of strides 4, 8, 16 and 32: what dense heads read, for ViT and for Swin.

docs/method.md. Strides are those of the usual patches (16 px for ViT, 4 px for Swin) and scale with them.
"""

import dataclasses
from typing import Any

import jax
from flax import nnx

from localmim_jax.errors import ConfigError
from localmim_jax.models import blocks
from localmim_jax.models.conv_norm import BatchNorm
from localmim_jax.models.swin import Swin, SwinConfig
from localmim_jax.models.upsample import Upsample
from localmim_jax.models.vit import ViT, ViTConfig


def dense_encoder(config: ViTConfig | SwinConfig) -> ViTConfig | SwinConfig:
    """The encoder as segmentation and detection use it: ViT's positions are parameters; Swin's windows keep their size,
    its taps are read before patch merging, and every norm has epsilon 1e-5."""
    if isinstance(config, ViTConfig):
        return dataclasses.replace(config, position="learned")
    return dataclasses.replace(config, window_rule="pad", tap_after_merging=False, epsilon=1e-5, epsilon2=None)


def pyramid_taps(config: ViTConfig | SwinConfig, taps: tuple[int, ...] | None = None) -> tuple[int, ...]:
    """The four layers to read, counted from 1: `taps`, or the paper's.

    Raises:
        ConfigError: there are not four, the encoder lacks one, or its map would be empty.
    """
    taps = config.default_taps if taps is None else taps
    if len(taps) != 4 or not all(1 <= tap <= config.num_layers for tap in taps):
        raise ConfigError(
            f"a feature pyramid reads four layers, and model.taps={taps} of an encoder of {config.num_layers} layers "
            "are not: set model.taps, or take a deeper encoder (a Swin of four stages)"
        )
    if isinstance(config, ViTConfig) and min(config.grid) < 2:
        raise ConfigError(f"a feature pyramid needs at least 2 x 2 patches, and image_size gives {config.grid}")
    return taps


class ViTPyramid(nnx.Module):
    """The taps' patch tokens, without a norm: up 4x and 2x by transposed convolutions, as they are, and pooled."""

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs):
        width, dtype = config.width, config.dtype
        self.grid = config.grid
        self.up4_first = Upsample(width, width, dtype=dtype, rngs=rngs)
        self.up4_norm = BatchNorm(width, rngs=rngs)
        self.up4_second = Upsample(width, width, dtype=dtype, rngs=rngs)
        self.up2 = Upsample(width, width, dtype=dtype, rngs=rngs)

    def __call__(
        self, features: tuple[jax.Array, ...], image_size: tuple[int, int], train: bool = False
    ) -> tuple[jax.Array, ...]:
        """Four [b, 1 + n, d], class token first -> four [b, h, w, d] of the grid times 4, 2, 1 and 1/2 (rounded down).

        `image_size` (pixels) is the encoder's; `train` makes the batch norm use the batch's statistics.
        """
        del image_size
        first, second, third, fourth = (x[:, 1:].reshape(x.shape[0], *self.grid, x.shape[-1]) for x in features)
        first = blocks.gelu(self.up4_norm(self.up4_first(first), train))
        (b, _, _, d), (rows, columns) = fourth.shape, (side // 2 for side in self.grid)
        fourth = fourth[:, : 2 * rows, : 2 * columns].reshape(b, rows, 2, columns, 2, d)
        return self.up4_second(first), self.up2(second), third, fourth.mean(axis=(2, 4))


class SwinPyramid(nnx.Module):
    """Every stage's tokens after a layer norm of its own."""

    def __init__(self, config: SwinConfig, taps: tuple[int, ...], *, rngs: nnx.Rngs):
        self.config, self.taps = config, taps
        self.norms = nnx.List(
            [
                blocks.layer_norm(config.feature_width(tap), config.epsilon, dtype=config.dtype, rngs=rngs)
                for tap in taps
            ]
        )

    def __call__(
        self, features: tuple[jax.Array, ...], image_size: tuple[int, int], train: bool = False
    ) -> tuple[jax.Array, ...]:
        """Four [b, n, d], rows first, of images of (h, w) pixels -> four [b, h / stride, w / stride, d], rounded up."""
        del train
        grids = [self.config.feature_grid(tap, image_size) for tap in self.taps]
        return tuple(
            norm(x).reshape(x.shape[0], *grid, x.shape[-1])
            for norm, x, grid in zip(self.norms, features, grids, strict=True)
        )


class PyramidBackbone(nnx.Module):
    """Images -> four feature maps. `encoder` is what pre-training trains; `pyramid` is new.

    Args:
        config: as `dense_encoder` gives it.
        taps: layers to read, see `pyramid_taps`.
    """

    def __init__(self, config: ViTConfig | SwinConfig, taps: tuple[int, ...] | None = None, *, rngs: nnx.Rngs):
        self.taps = pyramid_taps(config, taps)
        self.encoder: Any
        self.pyramid: Any
        if isinstance(config, ViTConfig):
            self.encoder, self.pyramid = ViT(config, rngs=rngs), ViTPyramid(config, rngs=rngs)
        else:
            self.encoder, self.pyramid = Swin(config, rngs=rngs), SwinPyramid(config, self.taps, rngs=rngs)

    def feature_maps(self, images: jax.Array, key: jax.Array | None = None) -> tuple[jax.Array, ...]:
        """Four maps, finest first.

        Args:
            images: [b, h, w, c], normalized; any size for Swin, the config's for ViT.
            key: draws the drop path and makes batch norms use the batch's statistics; None evaluates.

        Returns:
            Four [b, h_i, w_i, d_i] of strides 4, 8, 16, 32, in the compute dtype.
        """
        features = self.encoder(images, taps=self.taps, key=key)
        return self.pyramid(features, images.shape[1:3], key is not None)
