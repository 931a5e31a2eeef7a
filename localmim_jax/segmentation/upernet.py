"""The segmentation model: the UperNet head on four feature maps, and an auxiliary FCN head.

UperNet (Xiao et al., 2018) pools the coarsest map at several scales, adds it to the finer maps from the top down, and
classifies their concatenation at the resolution of the finest map. For the settings see the supplement, "Semantic
segmentation on ADE20K", and docs/method.md.
"""

import dataclasses
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32, PRNGKeyArray

from localmim_jax.errors import ConfigError
from localmim_jax.models.base import EncoderConfig, ModelConfig
from localmim_jax.models.conv_norm import ConvNorm
from localmim_jax.models.pyramid import PyramidBackbone
from localmim_jax.ops.resize import adaptive_average_pool, resize_bilinear

MAX_CLASSES = 254  # the values of an 8-bit mask, less "no class" (0 and 255)
_CLASSIFIER_STD = 0.01  # OpenMMLab's
_AUXILIARY_MAP = 2  # index of the map of stride 16


@dataclasses.dataclass(frozen=True)
class SegmenterConfig(ModelConfig):
    """Settings of the segmentation model.

    Attributes:
        encoder: backbone, as returned by `EncoderConfig.for_dense`.
        num_classes: number of classes, 2 to 254.
        taps: tapped layers, counted from 1; None for the paper's.
        channels: channels of the UperNet head.
        auxiliary_channels: channels of the FCN head; 0 leaves it out.
        pool_scales: sides of the pooled maps.
        dropout: probability that a channel is dropped before each classifier.
        auxiliary_weight: weight of the FCN head's loss.

    Raises:
        ConfigError: a value is out of range.
    """

    kind: ClassVar[str] = "segmenter"
    has_features: ClassVar[bool] = False
    with_statistics: ClassVar[bool] = True
    # The segmentation ViT's relative position bias and layer scale.
    new_parameters: ClassVar[tuple[str, ...]] = (
        r"encoder/blocks/\d+/attention/relative_position_bias",
        r"encoder/blocks/\d+/scale[12]",
    )
    position_interpolation: ClassVar[Literal["bicubic", "bilinear"]] = "bilinear"

    encoder: EncoderConfig
    num_classes: int
    taps: tuple[int, ...] | None
    channels: int
    auxiliary_channels: int
    pool_scales: tuple[int, ...]
    dropout: float
    auxiliary_weight: float

    def __post_init__(self) -> None:
        if not 2 <= self.num_classes <= MAX_CLASSES:
            raise ConfigError(f"model.num_classes is {self.num_classes}: it must be from 2 to {MAX_CLASSES}")
        if self.channels < 1 or self.auxiliary_channels < 0:
            raise ConfigError(
                f"model.channels {self.channels} must be at least 1 and auxiliary_channels "
                f"{self.auxiliary_channels} at least 0"
            )
        if not self.pool_scales or min(self.pool_scales) < 1:
            raise ConfigError(f"model.pool_scales {self.pool_scales}: sides of at least 1 are needed")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.dropout {self.dropout} is not in [0, 1)")
        if self.auxiliary_weight < 0:
            raise ConfigError(f"model.auxiliary_weight is {self.auxiliary_weight}; it must not be negative")
        self.encoder.pyramid_taps(self.taps)

    def make(self, rngs: nnx.Rngs) -> "Segmenter":
        """The model with random initial parameters."""
        return Segmenter(self, rngs=rngs)


class Segmenter(PyramidBackbone):
    """Images -> class scores of stride 4, and those of the auxiliary head, of stride 16."""

    def __init__(self, config: SegmenterConfig, *, rngs: nnx.Rngs):
        super().__init__(config.encoder, config.taps, rngs=rngs)
        self.config = config
        widths = tuple(config.encoder.feature_width(tap) for tap in self.taps)
        self.decode_head = UPerHead(config, widths, dtype=config.encoder.dtype, rngs=rngs)
        if config.auxiliary_channels:
            width = widths[_AUXILIARY_MAP]
            self.auxiliary_head = FCNHead(config, width, dtype=config.encoder.dtype, rngs=rngs)

    def __call__(
        self, images: Float[Array, "b h w c"], key: PRNGKeyArray | None = None
    ) -> tuple[Float32[Array, "b h4 w4 k"], Float32[Array, "b h16 w16 k"] | None]:
        """Class scores.

        Args:
            images: normalized images; any size for Swin, the config's for ViT.
            key: key of drop path and dropout; batch norms then use the statistics of the batch. None is deterministic.

        Returns:
            (logits of stride 4, those of the auxiliary head, of stride 16). The second is None without that head.
        """
        keys = (None, None, None) if key is None else tuple(jax.random.split(key, 3))
        with jax.named_scope("backbone"):
            maps = self.feature_maps(images, keys[0])
        logits = self.decode_head(maps, keys[1])
        if not self.config.auxiliary_channels:
            return logits, None
        return logits, self.auxiliary_head(maps[_AUXILIARY_MAP], keys[2])


class UPerHead(nnx.Module):
    """Four maps -> logits at the resolution of the finest map."""

    def __init__(self, config: SegmenterConfig, widths: tuple[int, ...], *, dtype: Any, rngs: nnx.Rngs):
        channels, scales = config.channels, config.pool_scales
        self.pool_scales = scales

        def conv(width: int, kernel: int) -> ConvNorm:
            return ConvNorm(width, channels, kernel, dtype=dtype, rngs=rngs)

        self.pooled = nnx.List([conv(widths[-1], 1) for _ in scales])
        self.bottleneck = conv(widths[-1] + len(scales) * channels, 3)
        self.laterals = nnx.List([conv(width, 1) for width in widths[:-1]])
        self.fpn = nnx.List([conv(channels, 3) for _ in widths[:-1]])
        self.fpn_bottleneck = conv(len(widths) * channels, 3)
        self.classifier = PixelClassifier(channels, config.num_classes, config.dropout, rngs=rngs)

    @jax.named_scope("uper_head")
    def __call__(
        self, maps: tuple[Float[Array, "b _h _w _d"], ...], key: PRNGKeyArray | None = None
    ) -> Float32[Array, "b h w k"]:
        """Logits from maps given finest first. For the key see `Segmenter`."""
        train = key is not None
        with jax.named_scope("lateral"):
            levels = [lateral(x, train) for lateral, x in zip(self.laterals, maps, strict=False)]
        levels.append(self._pool(maps[-1], train))
        with jax.named_scope("fpn"):
            for i in range(len(levels) - 2, -1, -1):
                levels[i] = levels[i] + resize_bilinear(levels[i + 1], _size(levels[i]))
            levels = [conv(x, train) for conv, x in zip(self.fpn, levels, strict=False)] + levels[-1:]
        with jax.named_scope("fuse"):
            finest = _size(levels[0])
            x = jnp.concatenate([resize_bilinear(level, finest) for level in levels], axis=-1)
            x = self.fpn_bottleneck(x, train)
        return self.classifier(x, key)

    @jax.named_scope("psp")
    def _pool(self, x: Float[Array, "b h w d"], train: bool) -> Float[Array, "b h w channels"]:
        """The pyramid pooling module."""
        parts = [x]
        for scale, conv in zip(self.pool_scales, self.pooled, strict=True):
            parts.append(resize_bilinear(conv(adaptive_average_pool(x, scale), train), _size(x)))
        return self.bottleneck(jnp.concatenate(parts, axis=-1), train)


class FCNHead(nnx.Module):
    """One 3x3 convolution and a classifier on one map."""

    def __init__(self, config: SegmenterConfig, width: int, *, dtype: Any, rngs: nnx.Rngs):
        self.conv = ConvNorm(width, config.auxiliary_channels, 3, dtype=dtype, rngs=rngs)
        self.classifier = PixelClassifier(config.auxiliary_channels, config.num_classes, config.dropout, rngs=rngs)

    @jax.named_scope("auxiliary_head")
    def __call__(self, x: Float[Array, "b h w d"], key: PRNGKeyArray | None = None) -> Float32[Array, "b h w k"]:
        """Logits. For the key see `Segmenter`."""
        return self.classifier(self.conv(x, key is not None), key)


class PixelClassifier(nnx.Module):
    """Dropout of whole channels, then a linear layer at every position, in float32."""

    def __init__(self, channels: int, num_classes: int, dropout: float, *, rngs: nnx.Rngs):
        self.dropout = dropout
        self.linear = nnx.Linear(channels, num_classes, kernel_init=nnx.initializers.normal(_CLASSIFIER_STD), rngs=rngs)

    @jax.named_scope("classifier")
    def __call__(self, x: Float[Array, "b h w d"], key: PRNGKeyArray | None) -> Float32[Array, "b h w k"]:
        x = x.astype(jnp.float32)
        if key is not None and self.dropout:
            keep = jax.random.bernoulli(key, 1 - self.dropout, (x.shape[0], 1, 1, x.shape[-1]))
            x = jnp.where(keep, x / (1 - self.dropout), 0.0)
        return self.linear(x)


def _size(x: Float[Array, "_b _h _w _d"]) -> tuple[int, int]:
    return x.shape[1], x.shape[2]
