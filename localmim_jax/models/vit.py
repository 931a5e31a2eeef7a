"""[2] The only ViT, for every task: images, a mask or none, and the layers to tap -> one feature a tap.

Standard architecture with a class token and fixed sine-cosine positions (supplement, section C). Masked patches are
dropped before they are embedded, so that at mask ratio 0.75 the whole encoder works on a quarter of the patches.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from localmim_jax.errors import ConfigError
from localmim_jax.models import blocks
from localmim_jax.models.mask import Mask
from localmim_jax.models.patch import PatchEmbed
from localmim_jax.models.positions import sincos_2d


@dataclasses.dataclass(frozen=True)
class ViTConfig:
    """A vision transformer. The defaults are ViT-B/16 at 224 px.

    Attributes:
        image_size: (h, w) in pixels, both divisible by patch_size.
        patch_size: side of a patch in pixels.
        in_channels: color channels of an image.
        width, depth, num_heads, mlp_ratio: of the transformer; num_heads divides width, width is a multiple of 4.
        drop_path: stochastic depth of the last block; the blocks before it ramp up to it linearly from 0.
        epsilon: of every layer norm.
        dtype: compute dtype; parameters are float32.
        remat: recompute each block's activations in the backward pass.
        attention: "xla" or "cudnn".
        position: "fixed" sine-cosine embeddings, or "learned" ones that start from them (fine-tuning).
        relative_position_bias: also a learned bias for every relative position, in each block; not with a mask.
        layer_scale: a learned factor, from 1, for every channel of each block's branches. These two are the
            segmentation backbone's and start as no change.
    """

    image_size: tuple[int, int] = (224, 224)
    patch_size: int = 16
    in_channels: int = 3
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    drop_path: float = 0.0
    epsilon: float = 1e-6
    dtype: Any = jnp.float32
    remat: bool = False
    attention: Literal["xla", "cudnn"] = "xla"
    position: Literal["fixed", "learned"] = "fixed"
    relative_position_bias: bool = False
    layer_scale: bool = False

    def __post_init__(self) -> None:
        (h, w), p = self.image_size, self.patch_size
        if p < 1 or h % p or w % p or min(h, w) < p:
            legal = [size for size in range(1, min(h, w) + 1) if h % size == 0 and w % size == 0]
            raise ConfigError(
                f"image_size {h}x{w} is not divisible by model.patch_size {p}: make both sides multiples of it; "
                f"for this image_size legal patch sizes are {legal}"
            )
        if self.num_heads < 1 or self.width % self.num_heads:
            legal = [heads for heads in range(1, 33) if self.width % heads == 0]
            raise ConfigError(
                f"model.width {self.width} is not divisible by model.num_heads {self.num_heads}: legal are {legal}"
            )
        if self.width % 4:
            raise ConfigError(f"model.width {self.width} is not a multiple of 4, which 2-D sine-cosine positions need")
        if self.depth < 1 or self.in_channels < 1:
            raise ConfigError(f"model.depth {self.depth} and data.channels {self.in_channels} must be at least 1")
        if not 0.0 <= self.drop_path < 1.0:
            raise ConfigError(f"model.drop_path {self.drop_path} is not in [0, 1)")
        if self.width * self.mlp_ratio < 1:
            raise ConfigError(f"model.mlp_ratio {self.mlp_ratio} leaves the MLPs no hidden unit: 4 is usual")
        if self.position not in ("fixed", "learned"):
            raise ConfigError(f"position is {self.position!r}: choose 'fixed' or 'learned'")

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of patches."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    @property
    def mask_grid(self) -> tuple[int, int]:
        """(rows, columns) of mask units: every patch is one."""
        return self.grid

    @property
    def num_layers(self) -> int:
        """How many layers can be tapped."""
        return self.depth

    def feature_grid(self, tap: int) -> tuple[int, int]:
        """(rows, columns) of the tokens after a layer."""
        return self.grid

    def feature_width(self, tap: int) -> int:
        """Channels of the tokens after a layer."""
        return self.width

    @property
    def default_taps(self) -> tuple[int, ...]:
        """The paper's layers, counted from 1: 2, 4, depth - 2, depth. Shallower models tap what they have of these."""
        return tuple(sorted({min(2, self.depth), min(4, self.depth), max(self.depth - 2, 1), self.depth}))

    @staticmethod
    def default_decoder_width(tap: int) -> int:
        """The paper's decoder width, the same for every tap."""
        return 256


VARIANTS = {
    "vit_ti": {"width": 192, "depth": 12, "num_heads": 3},
    "vit_s": {"width": 384, "depth": 12, "num_heads": 6},
    "vit_b": {"width": 768, "depth": 12, "num_heads": 12},
    "vit_l": {"width": 1024, "depth": 24, "num_heads": 16},
}


def position_table(config: ViTConfig) -> np.ndarray:
    """The fixed positions of the class token (a row of zeros) and of every patch: float32 [1 + n, width]."""
    return np.concatenate([np.zeros((1, config.width), np.float32), sincos_2d(config.grid, config.width)])


class ViT(nnx.Module):
    """A plain vision transformer without a final norm: norms belong to whoever reads a tap."""

    num_prefix_tokens = 1  # the class token leads every feature

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs):
        self.config = config
        block = blocks.BlockConfig(
            width=config.width,
            num_heads=config.num_heads,
            mlp_ratio=config.mlp_ratio,
            epsilon=config.epsilon,
            dtype=config.dtype,
            attention=config.attention,
            relative_grid=config.grid if config.relative_position_bias else None,
            layer_scale=config.layer_scale,
        )
        self.patch_embed = PatchEmbed(
            config.patch_size, config.in_channels, config.width, dtype=config.dtype, rngs=rngs
        )
        self.class_token = nnx.Param(0.02 * jax.random.normal(rngs.params(), (config.width,)))
        if config.position == "learned":
            self.position_embedding = nnx.Param(jnp.asarray(position_table(config)))
        self.blocks = nnx.List(
            [
                blocks.Block(block, drop_path=config.drop_path * i / max(config.depth - 1, 1), rngs=rngs)
                for i in range(config.depth)
            ]
        )

    def __call__(
        self, images: jax.Array, mask: Mask | None = None, taps: tuple[int, ...] = (), key: jax.Array | None = None
    ) -> tuple[jax.Array, ...]:
        """Runs the visible patches through the blocks.

        Args:
            images: [b, h, w, c], normalized.
            mask: over the patch grid; None sees everything.
            taps: layers to read, counted from 1; a layer may be read more than once.
            key: draws the drop path; None means deterministic.

        Returns:
            For every tap the output of that block, without a norm: [b, 1 + k, width], class token first.

        Raises:
            ValueError: a mask, and a relative position bias, which is between all patches of the grid.
        """
        x = self._embed(images, mask)
        features = {}
        for number, block in enumerate(list(self.blocks)[: max(taps, default=0)], start=1):
            block_key = None if key is None else jax.random.fold_in(key, number)
            x = blocks.run_block(block, self.config.remat, x, None, None, block_key)
            features[number] = x
        return tuple(features[tap] for tap in taps)

    def attention(self, images: jax.Array, measure: blocks.Measure) -> list[jax.Array]:
        """What `measure` makes of every block's attention maps, of whole images.

        The maps of one block at a time exist, so `measure` should return something small.

        Args:
            images: [b, h, w, c], normalized.
            measure: (weights, group, coordinates), see `blocks.Measure`; there is one group, without the class token.

        Returns:
            One result a block.
        """
        rows, columns = np.meshgrid(*map(np.arange, self.config.grid), indexing="ij")
        coordinates = np.stack([rows.ravel(), columns.ravel()], axis=-1).astype(np.int32)
        coordinates = np.concatenate([np.full((1, 2), -1, np.int32), coordinates])[None]
        group = np.minimum(coordinates[..., 0], 0)
        x, results = self._embed(images, None), []
        for block in self.blocks:
            results.append(measure(block.attention.weights(block.norm1(x))[:, None], group, coordinates))
            x = block(x)
        return results

    def _embed(self, images: jax.Array, mask: Mask | None) -> jax.Array:
        config = self.config
        if mask is not None and config.relative_position_bias:
            raise ValueError("relative_position_bias is for whole images: leave the mask out")
        keep = None if mask is None else mask.keep
        x = self.patch_embed(images, keep)
        learned = config.position == "learned"
        table = self.position_embedding[...] if learned else jnp.asarray(position_table(config))
        class_position, positions = table[0].astype(config.dtype), table[1:].astype(config.dtype)
        x = x + (positions[None] if keep is None else jnp.repeat(positions[keep], x.shape[0] // len(keep), axis=0))
        class_token = self.class_token[...].astype(config.dtype) + class_position
        return jnp.concatenate([jnp.broadcast_to(class_token, (x.shape[0], 1, config.width)), x], axis=1)
