"""LocalMIM: several layers of an encoder, low to high, each reconstruct the masked image at their own scale.

"Masked Image Modeling with Local Multi-Scale Reconstruction", CVPR 2023; every constant is in docs/method.md.

A *tapped layer*, or tap, is a layer whose output is read by more than the next layer: in pre-training by a decoder, in
segmentation and detection by a feature pyramid (timm: out_indices). Layers count from 1: ViT's blocks, Swin's stages.
"""

import dataclasses
from typing import ClassVar

import jax
from flax import nnx
from jaxtyping import Array, Float, Float32, PRNGKeyArray

from localmim_jax.errors import ConfigError
from localmim_jax.method.decoders import Decoder, DecoderConfig
from localmim_jax.method.fusion import Fusion
from localmim_jax.method.losses import multi_scale_loss
from localmim_jax.method.masking import check_num_masks, num_visible, random_mask
from localmim_jax.method.targets import TargetConfig, make_targets
from localmim_jax.models.base import EncoderConfig, ModelConfig
from localmim_jax.models.info import ModelInfo
from localmim_jax.models.mask import Mask


class LocalMIM(nnx.Module):
    """An encoder and one decoder for each tapped layer. Only `encoder` is kept after pre-training."""

    def __init__(self, config: "LocalMIMConfig", *, rngs: nnx.Rngs):
        self.config = config
        self.encoder = config.encoder.make(rngs)
        self.decoders = nnx.List([Decoder(decoder, rngs=rngs) for decoder in config.decoders()])
        if config.fusion:
            self.fusion = Fusion(config.encoder, config.fusion, config.taps[0], rngs=rngs)

    def predict(self, images: Float[Array, "b h w c"], mask: Mask) -> list[Float[Array, "b _ _"]]:
        """One prediction [b, cells, channels] for each tapped layer, for visible and masked cells alike."""
        config = self.config
        features = self.encoder(images, mask=mask, taps=config.fusion or config.taps)
        if config.fusion:
            features = (self.fusion(features),)
        predictions = []
        for scale, decode, feature in zip(scale_labels(config), self.decoders, features, strict=True):
            with jax.named_scope(f"decoder_{scale}"):
                predictions.append(decode(feature, mask))
        return predictions

    def features(self, images: Float[Array, "b h w c"]) -> Float[Array, "b d"]:
        """What k-NN and probes read: the mean of the last tap's normalized patch tokens, unmasked."""
        (feature,) = self.encoder(images, taps=self.config.taps[-1:])
        return self.decoders[-1].norm(feature)[:, self.config.encoder.num_prefix_tokens :].mean(axis=1)


def pretrain_loss(
    model: LocalMIM, images: Float[Array, "b h w c"], mask: Mask
) -> tuple[Float32[Array, ""], dict[str, Float32[Array, ""]]]:
    """The training objective: the masked error at every scale, summed.

    Args:
        model: the model.
        images: normalized by mean and standard deviation.
        mask: m masks, where m divides b; see `draw_mask`.

    Returns:
        The summed loss, and {"loss": it, "loss/<cell>px": each scale's own}.
    """
    predictions = model.predict(images, mask)
    targets = make_targets(images, model.config.target)
    with jax.named_scope("loss"):
        mask = mask.per_image(images.shape[0])
        weights = [mask.resized_to(decoder.config.target_grid) for decoder in model.decoders]
        loss, losses = multi_scale_loss(predictions, targets, weights)
    return loss, {"loss": loss} | dict(zip(scale_names(model.config), losses, strict=True))


@jax.named_scope("masking")
def draw_mask(key: PRNGKeyArray, config: "LocalMIMConfig", batch: int) -> Mask:
    """Random masks for a batch of images, with the config's mask ratio and number of masks.

    Raises:
        ConfigError: the number of masks does not divide the batch.
    """
    num_masks = batch if config.num_masks is None else config.num_masks
    check_num_masks(num_masks, batch, 1)
    return random_mask(key, num_masks, config.encoder.mask_grid, config.mask_ratio)


@dataclasses.dataclass(frozen=True)
class LocalMIMConfig(ModelConfig):
    """A pre-training model.

    Attributes:
        encoder: the backbone.
        taps: tapped layers, counted from 1; each has a decoder.
        target: kind and scales; `target.cells[i]` belongs to `taps[i]`.
        decoder_width: width of every decoder, or one for each tap; None for the paper's.
        decoder_num_heads, decoder_depth: attention heads and blocks of every decoder.
        mask_ratio: masked fraction of the mask units.
        num_masks: masks in a batch, each shared by a slice of it; None gives every image its own.
        fusion: layers that are fused into the tap before its decoder reads it (supplement, A.2); empty for none. There
            is then one tap, and no layer above it among these.
    """

    kind: ClassVar[str] = "pretrain"

    encoder: EncoderConfig
    taps: tuple[int, ...]
    target: TargetConfig
    decoder_width: int | tuple[int, ...] | None
    decoder_num_heads: int
    decoder_depth: int
    mask_ratio: float
    fusion: tuple[int, ...]
    num_masks: int | None = None

    def __post_init__(self) -> None:
        encoder, cells = self.encoder, self.target.cells
        if not self.taps or any(not 1 <= tap <= encoder.num_layers for tap in self.taps):
            raise ConfigError(f"model.taps {self.taps}: give at least one layer, each from 1 to {encoder.num_layers}")
        if self.fusion and (len(self.taps) != 1 or not all(1 <= layer <= self.taps[0] for layer in self.fusion)):
            raise ConfigError(
                f"model.fusion {self.fusion} with model.taps {self.taps}: fusing feeds one decoder, so name one tap, "
                "and layers from 1 to it"
            )
        if len(cells) != len(self.taps):
            raise ConfigError(
                f"model.target.cells {cells} has {len(cells)} scales for the {len(self.taps)} taps {self.taps}: "
                "one each"
            )
        num_visible(encoder.mask_grid, self.mask_ratio)
        h, w = encoder.image_size
        for tap, cell in zip(self.taps, cells, strict=True):
            stride = h // encoder.feature_grid(tap)[0]
            legal = [
                size
                for size in sorted({stride * 2**i for i in range(10)} | {stride // 2**i for i in range(10)} - {0})
                if max(size, stride) % min(size, stride) == 0 and h % size == 0 and w % size == 0
            ]
            if cell not in legal:
                raise ConfigError(
                    f"model.target.cells: a cell of {cell} px does not fit layer {tap}, which has {stride} px tokens, "
                    f"of {h}x{w} images: legal cells are {legal}"
                )
        if isinstance(self.decoder_width, tuple) and len(self.decoder_width) != len(self.taps):
            raise ConfigError(
                f"model.decoder.width {self.decoder_width} has {len(self.decoder_width)} values for the "
                f"{len(self.taps)} taps {self.taps}: give one number, or one for each tap"
            )
        self.decoders()

    def decoders(self) -> tuple[DecoderConfig, ...]:
        """The configuration of every tap's decoder."""
        encoder = self.encoder
        h, w = encoder.image_size
        widths = self.decoder_width
        if widths is None:
            widths = tuple(encoder.default_decoder_width(tap) for tap in self.taps)
        elif isinstance(widths, int):
            widths = (widths,) * len(self.taps)
        return tuple(
            DecoderConfig(
                in_width=encoder.feature_width(tap),
                feature_grid=encoder.feature_grid(tap),
                target_grid=(h // cell, w // cell),
                out_channels=self.target.channels(cell, encoder.in_channels),
                width=width,
                num_heads=self.decoder_num_heads,
                depth=self.decoder_depth,
                num_prefix_tokens=encoder.num_prefix_tokens,
                epsilon=encoder.epsilon,
                prediction_init=encoder.prediction_init,
                dtype=encoder.dtype,
                remat=encoder.remat,
                attention=encoder.attention,
            )
            for tap, cell, width in zip(self.taps, self.target.cells, widths, strict=True)
        )

    def make(self, rngs: nnx.Rngs) -> "LocalMIM":
        """The model with random initial parameters."""
        return LocalMIM(self, rngs=rngs)

    def describe(self) -> ModelInfo:
        """A description of the model."""
        return dataclasses.replace(
            super().describe(),
            taps=tuple(self.taps),
            target=self.target.kind,
            log2_scale=tuple(decoder.log2_scale for decoder in self.decoders()),
            hog_bias=self.target.hog_bias,
        )


def scale_labels(config: LocalMIMConfig) -> list[str]:
    """A name for the scale of every tap: "8px", or "tap2_layer4/16px" where scales repeat."""
    cells = config.target.cells
    unique = len(set(cells)) == len(cells)
    return [
        f"{cell}px" if unique else f"tap{i}_layer{tap}/{cell}px"
        for i, (tap, cell) in enumerate(zip(config.taps, cells, strict=True), start=1)
    ]


def scale_names(config: LocalMIMConfig) -> list[str]:
    """The metric of every tap: "loss/8px"."""
    return [f"loss/{label}" for label in scale_labels(config)]
