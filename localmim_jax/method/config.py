"""The configuration of a pre-training model, and its checks."""

import dataclasses

from localmim_jax.errors import ConfigError
from localmim_jax.method.decoders import DecoderConfig
from localmim_jax.method.masking import num_visible
from localmim_jax.method.targets import TargetConfig
from localmim_jax.models.swin import Swin, SwinConfig
from localmim_jax.models.vit import ViT, ViTConfig


@dataclasses.dataclass(frozen=True)
class LocalMIMConfig:
    """A pre-training model.

    Attributes:
        encoder: the backbone.
        taps: layers that reconstruct, counted from 1; one decoder each.
        target: kind and scales; `target.cells[i]` belongs to `taps[i]`.
        decoder_width: of every decoder, or one a tap; None for the paper's.
        decoder_num_heads, decoder_depth: of every decoder.
        mask_ratio: masked share of the mask units.
        num_masks: masks a batch, each shared by a slice of it; None gives every image its own.
        fusion: layers that are fused into the tap before its decoder reads it (supplement, A.2); empty for none. There
            is then one tap, and no layer above it among these.
    """

    encoder: ViTConfig | SwinConfig = ViTConfig()
    taps: tuple[int, ...] = (2, 4, 10, 12)
    target: TargetConfig = TargetConfig()
    decoder_width: int | tuple[int, ...] | None = None
    decoder_num_heads: int = 8
    decoder_depth: int = 1
    mask_ratio: float = 0.75
    num_masks: int | None = None
    fusion: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        encoder, cells = self.encoder, self.target.cells
        if not self.taps or any(not 1 <= tap <= encoder.num_layers for tap in self.taps):
            raise ConfigError(f"model.taps {self.taps}: at least one is needed, all from 1 to {encoder.num_layers}")
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
                f"{len(self.taps)} taps {self.taps}: one number, or one a tap"
            )
        self.decoders()

    def decoders(self) -> tuple[DecoderConfig, ...]:
        """The configuration of every tap's decoder."""
        encoder = self.encoder
        h, w = encoder.image_size
        is_vit = isinstance(encoder, ViTConfig)
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
                num_prefix_tokens=ViT.num_prefix_tokens if is_vit else Swin.num_prefix_tokens,
                epsilon=encoder.epsilon,
                prediction_init="conv" if is_vit else "linear",
                dtype=encoder.dtype,
                remat=encoder.remat,
                attention=encoder.attention,
            )
            for tap, cell, width in zip(self.taps, self.target.cells, widths, strict=True)
        )


def scale_names(config: LocalMIMConfig) -> list[str]:
    """A metric name for every tap: "loss/8px", or "loss/layer4/16px" where scales repeat."""
    cells = config.target.cells
    unique = len(set(cells)) == len(cells)
    return [
        f"loss/{cell}px" if unique else f"loss/tap{i}_layer{tap}/{cell}px"
        for i, (tap, cell) in enumerate(zip(config.taps, cells, strict=True), start=1)
    ]
