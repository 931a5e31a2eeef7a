"""[2] The only ViT, for every task: images, a mask or none, and the tapped layers -> one feature for each.

Standard architecture with a class token and fixed sine-cosine positions (supplement, section C). Masked patches are
dropped before they are embedded, so that at mask ratio 0.75 the whole encoder works on a quarter of the patches.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32, PRNGKeyArray

from localmim_jax.errors import ConfigError
from localmim_jax.models import blocks, decay
from localmim_jax.models.base import EncoderConfig
from localmim_jax.models.block_loop import DropPaths, run_blocks
from localmim_jax.models.mask import Mask
from localmim_jax.models.patch import PatchEmbed
from localmim_jax.models.positions import sincos_2d
from localmim_jax.models.pyramid import ViTPyramid

VARIANTS = {
    "vit_ti": {"width": 192, "depth": 12, "num_heads": 3},
    "vit_s": {"width": 384, "depth": 12, "num_heads": 6},
    "vit_b": {"width": 768, "depth": 12, "num_heads": 12},
    "vit_l": {"width": 1024, "depth": 24, "num_heads": 16},
}


@dataclasses.dataclass(frozen=True)
class ViTConfig(EncoderConfig):
    """A vision transformer.

    Attributes:
        image_size: (h, w) in pixels, both divisible by patch_size.
        patch_size: side of a patch in pixels.
        in_channels: color channels of an image.
        width, depth, num_heads, mlp_ratio: of the transformer; num_heads divides width, width is a multiple of 4.
        drop_path: stochastic depth of the last block; the blocks before it ramp up to it linearly from 0.
        epsilon: layer-norm epsilon.
        dtype: compute dtype; parameters are float32.
        remat: recompute each block's activations in the backward pass.
        scan_blocks: whether equal blocks run as a loop, see `models.block_loop`.
        attention: "xla" or "cudnn".
        position: "fixed" sine-cosine embeddings, or "learned" ones that start from them (fine-tuning, and pre-training
            that starts from a model with learned positions).
        relative_position_bias: also a learned bias for every relative position, in each block; not with a mask.
        layer_scale: a learned factor, from 1, for every channel of each block's branches. These two are the
            segmentation backbone's and start as no change.
    """

    family: ClassVar[str] = "vit"
    label: ClassVar[str] = "ViT"
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = VARIANTS
    has_class_token: ClassVar[bool] = True
    class_token_has_position: ClassVar[bool] = True
    fixed_image_size: ClassVar[bool] = True
    dense_patch_size: ClassVar[int] = 16
    prediction_init: ClassVar[Literal["conv", "linear"]] = "conv"
    weight_decay: ClassVar[Mapping[str, decay.Rules]] = decay.VIT

    image_size: tuple[int, int]
    patch_size: int
    in_channels: int
    width: int
    depth: int
    num_heads: int
    mlp_ratio: float
    drop_path: float
    dtype: Any
    remat: bool
    scan_blocks: bool
    attention: Literal["xla", "cudnn"]
    epsilon: float = 1e-6
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
            raise ConfigError(f"model.mlp_ratio {self.mlp_ratio} gives the MLPs a width of 0: the usual ratio is 4")
        if self.position not in ("fixed", "learned"):
            raise ConfigError(f"model.position is {self.position!r}: choose 'fixed' or 'learned'")

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of patches."""
        return self.feature_grid(1)

    @property
    def mask_grid(self) -> tuple[int, int]:
        """(rows, columns) of mask units: every patch is one."""
        return self.grid

    @property
    def num_layers(self) -> int:
        """How many layers can be tapped."""
        return self.depth

    @property
    def num_blocks(self) -> int:
        """How many blocks there are."""
        return self.depth

    @property
    def num_prefix_tokens(self) -> int:
        """The class token leads every feature."""
        return 1

    @property
    def heads(self) -> tuple[int, ...]:
        """Attention heads of every block."""
        return (self.num_heads,)

    def feature_grid(self, tap: int, image_size: tuple[int, int] | None = None) -> tuple[int, int]:
        """(rows, columns) of the tokens after a layer, for images of `image_size` (None: the config's)."""
        h, w = image_size or self.image_size
        return h // self.patch_size, w // self.patch_size

    def feature_width(self, tap: int) -> int:
        """Channels of the tokens after a layer."""
        return self.width

    @property
    def default_taps(self) -> tuple[int, ...]:
        """The paper's layers, counted from 1: 2, 4, depth - 2, depth. Shallower models tap those that they have."""
        return tuple(sorted({min(2, self.depth), min(4, self.depth), max(self.depth - 2, 1), self.depth}))

    def default_cells(self, taps: tuple[int, ...]) -> tuple[int, ...]:
        """The paper's four scales, for four taps: a quarter, a half, one and two patches."""
        quarter = self.patch_size // 4
        if len(taps) != 4 or self.patch_size % 4:
            raise ConfigError(
                f"model.target.cells is not set, and the paper's four scales do not fit {len(taps)} taps of "
                f"{self.patch_size} px patches: set one cell per tap, in pixels"
            )
        return quarter, 2 * quarter, 4 * quarter, 8 * quarter

    def default_decoder_width(self, tap: int) -> int:
        """The paper's decoder width, the same for every tap."""
        return 256

    def make(self, rngs: nnx.Rngs) -> "ViT":
        """The encoder with random initial parameters."""
        return ViT(self, rngs=rngs)

    def make_pyramid(self, taps: tuple[int, ...], rngs: nnx.Rngs) -> ViTPyramid:
        """Four maps from the one grid."""
        return ViTPyramid(self, taps, rngs=rngs)

    def pyramid_taps(self, taps: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """The four layers that a feature pyramid reads; its coarsest map has half the grid."""
        taps = super().pyramid_taps(taps)
        if min(self.grid) < 2:
            raise ConfigError(f"a feature pyramid needs at least 2 x 2 patches, and image_size gives {self.grid}")
        return taps

    def for_classification(self) -> Self:
        """With positions as parameters."""
        return dataclasses.replace(self, position="learned")

    def for_dense(self, relative_and_scale: bool = False) -> Self:
        """With positions as parameters; the release's segmentation adds a relative position bias and layer scale."""
        learned = dataclasses.replace(self, position="learned")
        if not relative_and_scale:
            return learned
        return dataclasses.replace(learned, relative_position_bias=True, layer_scale=True)

    def encoder_layer(self, path: str) -> int:
        """Block i, from 0, is layer i + 1."""
        block = re.match(r"blocks/(\d+)/", path)
        return int(block[1]) + 1 if block else 0

    def position_table(self) -> Float32[np.ndarray, "n {self.width}"]:
        """The fixed positions of the class token (a row of zeros) and of every patch."""
        return np.concatenate([np.zeros((1, self.width), np.float32), sincos_2d(self.grid, self.width)])

    def fixed_parameters(self) -> dict[str, np.ndarray]:
        """The positions, unless they are learned."""
        return {} if self.position == "learned" else {"position_embedding": self.position_table()}


class ViT(nnx.Module):
    """A plain vision transformer without a final norm: norms belong to the module that reads a tap."""

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
            self.position_embedding = nnx.Param(jnp.asarray(config.position_table()))
        self.blocks = nnx.List([blocks.Block(block, rngs=rngs) for _ in range(config.depth)])

    @jax.named_scope("encoder")
    def __call__(
        self,
        images: Float[Array, "b h w c"],
        mask: Mask | None = None,
        taps: tuple[int, ...] = (),
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "b _ _"], ...]:
        """Runs the visible patches through the blocks.

        Args:
            images: normalized by mean and standard deviation.
            mask: over the patch grid; None sees everything.
            taps: layers to read, counted from 1; a layer may be read more than once.
            key: draws the drop path; None means deterministic.

        Returns:
            For every tap the output of that block, without a norm, the class token first.

        Raises:
            ValueError: a mask, and a relative position bias, which is between all patches of the grid.
        """
        x = self._embed(images, mask)
        config, depth = self.config, max(taps, default=0)
        drops = None if key is None else DropPaths(key, 1, config.drop_path_rates)
        outputs = run_blocks(
            list(self.blocks)[:depth],
            x,
            [(None, None)],
            drops,
            remat=config.remat,
            scan=config.scan_blocks,
            every=set(taps) != {depth},
        )
        return tuple(outputs[tap - depth - 1] for tap in taps)

    def attention(self, images: Float[Array, "b h w c"], measure: blocks.Measure) -> list[Any]:
        """`measure` applied to the attention maps of every block, for whole images.

        Only one block's maps are in memory at a time, so `measure` should return something small.

        Args:
            images: normalized by mean and standard deviation.
            measure: (weights, group, coordinates), see `blocks.Measure`; there is one group, without the prefix tokens.

        Returns:
            One result per block.
        """
        rows, columns = np.meshgrid(*map(np.arange, self.config.grid), indexing="ij")
        coordinates = np.stack([rows.ravel(), columns.ravel()], axis=-1).astype(np.int32)
        prefix = np.full((self.config.num_prefix_tokens, 2), -1, np.int32)
        coordinates = np.concatenate([prefix, coordinates])[None]
        group = np.minimum(coordinates[..., 0], 0)
        x, results = self._embed(images, None), []
        for block in self.blocks:
            results.append(measure(block.attention.weights(block.norm1(x))[:, None], group, coordinates))
            x = block(x)
        return results

    @jax.named_scope("patch_embed")
    def _embed(self, images: Float[Array, "b h w c"], mask: Mask | None) -> Float[Array, "b n d"]:
        config = self.config
        if mask is not None and config.relative_position_bias:
            raise ValueError("relative_position_bias is for whole images: leave the mask out")
        keep = None if mask is None else mask.keep
        x = self.patch_embed(images, keep)
        learned = config.position == "learned"
        table = self.position_embedding[...] if learned else jnp.asarray(config.position_table())
        prefix, positions = self._prefix_and_positions(table.astype(config.dtype))
        x = x + (positions[None] if keep is None else jnp.repeat(positions[keep], x.shape[0] // len(keep), axis=0))
        return jnp.concatenate([jnp.broadcast_to(prefix, (x.shape[0], *prefix.shape)), x], axis=1)

    def _prefix_and_positions(self, table: Float[Array, "rows d"]) -> tuple[Float[Array, "p d"], Float[Array, "n d"]]:
        """The p prefix tokens and the n patches' positions, from the table in the compute dtype."""
        return (self.class_token[...].astype(table.dtype) + table[0])[None], table[1:]
