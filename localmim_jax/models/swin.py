"""[2] One Swin for every task: images, an optional mask, and the tapped stages -> one feature for each.

With a mask only the visible tokens are embedded and processed, at their true places throughout; without one, every
token, on any (h, w). Both use the same parameters, and with nothing masked both give the same features.
docs/differences.md describes the two defects of the authors' release that this avoids.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from localmim_jax.errors import ConfigError
from localmim_jax.models import blocks, decay
from localmim_jax.models.base import EncoderConfig
from localmim_jax.models.block_loop import DropPaths, run_blocks
from localmim_jax.models.mask import Mask
from localmim_jax.models.norm import LayerNorm
from localmim_jax.models.patch import PatchEmbed
from localmim_jax.models.pyramid import SwinPyramid
from localmim_jax.models.swin_blocks import PatchMerging, SwinBlock
from localmim_jax.models.windows import DenseWindows, Layout, sparse_windows, token_coordinates

VARIANTS = {
    "swin_t": {"width": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)},
    "swin_s": {"width": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24)},
    "swin_b": {"width": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)},
    "swin_l": {"width": 192, "depths": (2, 2, 18, 2), "num_heads": (6, 12, 24, 48)},
}


@dataclasses.dataclass(frozen=True)
class SwinConfig(EncoderConfig):
    """A Swin transformer.

    Attributes:
        image_size: (h, w) in pixels that the windows are fitted to; pre-training needs multiples of a mask unit.
        patch_size: side of a patch in pixels.
        in_channels: color channels of an image.
        width: channels of the first stage; every patch merging doubles them.
        depths, num_heads: blocks of each stage, and attention heads in them.
        window: side of an attention window in tokens.
        window_rule: "shrink" for pre-training and classification: a window is never larger than image_size's grid, and
            nothing shifts where the grid is not larger than the window; "pad" for segmentation and detection: windows
            keep their size and every odd block shifts. Either pads a grid that is no multiple of the window.
        tap_after_merging: whether a tap is read after the patch merging that ends its stage (pre-training) or before
            it (segmentation, detection).
        sparse_attention: form of each stage's attention among visible tokens: "packed" into groups of whole windows, or
            "plain", all tokens at once, as it also is where one group is enough. They give the same numbers; None
            packs every stage, which was the faster form in each (docs/benchmarks.md).
        mlp_ratio: hidden width of an MLP over the block's width.
        drop_path: stochastic depth of the last block; the blocks before it ramp up to it linearly from 0.
        epsilon: layer-norm epsilon.
        epsilon2: epsilon of every block's second layer norm; None for the same.
        dtype: compute dtype; parameters are float32.
        remat: recompute each block's activations in the backward pass.
        scan_blocks: whether equal blocks run as a loop, see `models.block_loop`.
        attention: "xla" or "cudnn", for the decoders: windows add a bias of their own and always use XLA.
    """

    family: ClassVar[str] = "swin"
    label: ClassVar[str] = "Swin"
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = VARIANTS
    has_class_token: ClassVar[bool] = False
    fixed_image_size: ClassVar[bool] = False
    dense_patch_size: ClassVar[int] = 4
    prediction_init: ClassVar[Literal["conv", "linear"]] = "linear"
    weight_decay: ClassVar[Mapping[str, decay.Rules]] = decay.SWIN

    image_size: tuple[int, int]
    patch_size: int
    in_channels: int
    width: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window: int
    mlp_ratio: float
    drop_path: float
    dtype: Any
    remat: bool
    scan_blocks: bool
    attention: Literal["xla", "cudnn"]
    window_rule: Literal["shrink", "pad"] = "shrink"
    tap_after_merging: bool = True
    sparse_attention: tuple[Literal["packed", "plain"], ...] | None = None
    epsilon: float = 1e-6
    epsilon2: float | None = None

    def __post_init__(self) -> None:
        stages = len(self.depths)
        if stages < 1 or any(depth < 1 for depth in self.depths):
            raise ConfigError(f"model.depths {self.depths}: name at least one stage, each with at least 1 block")
        for key in ("num_heads", "sparse_attention"):
            if len(getattr(self, key) or self.depths) != stages:
                raise ConfigError(f"model.{key} {getattr(self, key)} needs one value for each of the {stages} stages")
        for i, heads in enumerate(self.num_heads):
            width = self.width * 2**i
            if heads < 1 or width % heads:
                legal = [number for number in range(1, 65) if width % number == 0]
                raise ConfigError(f"model.num_heads: {heads} do not divide stage {i + 1}'s width {width}: {legal} do")
        if any(form not in ("packed", "plain") for form in self.sparse_attention or ()):
            raise ConfigError(f"model.sparse_attention {self.sparse_attention}: each stage is 'packed' or 'plain'")
        if self.window_rule not in ("shrink", "pad"):
            raise ConfigError(f"model.window_rule is {self.window_rule!r}: choose 'shrink' or 'pad'")
        if self.window < 2 or self.patch_size < 1 or self.in_channels < 1 or min(self.image_size) < 1:
            raise ConfigError(
                f"model.window {self.window} must be at least 2; patch_size {self.patch_size}, channels "
                f"{self.in_channels} and image_size {self.image_size} at least 1"
            )
        if not 0.0 <= self.drop_path < 1.0:
            raise ConfigError(f"model.drop_path {self.drop_path} is not in [0, 1)")
        if self.width * self.mlp_ratio < 1:
            raise ConfigError(f"model.mlp_ratio {self.mlp_ratio} gives the MLPs a width of 0: the usual ratio is 4")

    @property
    def mask_unit(self) -> int:
        """Side in pixels of a mask unit: one token of the last stage."""
        return self.patch_size * 2 ** (self.num_layers - 1)

    @property
    def mask_grid(self) -> tuple[int, int]:
        """(rows, columns) of mask units.

        Raises:
            ConfigError: the image is not a multiple of a unit.
        """
        (h, w), unit = self.image_size, self.mask_unit
        if h % unit or w % unit:
            raise ConfigError(
                f"image_size {h}x{w} is not a multiple of the {unit} px mask units that pre-training needs"
            )
        return h // unit, w // unit

    @property
    def num_layers(self) -> int:
        """How many layers can be tapped: the stages."""
        return len(self.depths)

    @property
    def num_blocks(self) -> int:
        """How many blocks there are, through all stages."""
        return sum(self.depths)

    @property
    def num_prefix_tokens(self) -> int:
        """Every token has a place in the image."""
        return 0

    @property
    def heads(self) -> tuple[int, ...]:
        """Attention heads of every stage."""
        return self.num_heads

    def grids(self, image_size: tuple[int, ...]) -> list[tuple[int, int]]:
        """(rows, columns) of every stage's tokens, of any image: what does not divide is padded, so rounded up."""
        grids = [(-(-image_size[0] // self.patch_size), -(-image_size[1] // self.patch_size))]
        for _ in self.depths[1:]:
            grids.append((-(-grids[-1][0] // 2), -(-grids[-1][1] // 2)))
        return grids

    def _tapped_stage(self, tap: int) -> int:
        """Index of the stage in whose grid and width a tap's tokens are."""
        return min(tap, self.num_layers - 1) if self.tap_after_merging else tap - 1

    def feature_grid(self, tap: int, image_size: tuple[int, int] | None = None) -> tuple[int, int]:
        """(rows, columns) of the tokens of a tap, for images of `image_size` (None: the config's)."""
        return self.grids(image_size or self.image_size)[self._tapped_stage(tap)]

    def feature_width(self, tap: int) -> int:
        """Channels of the tokens of a tap."""
        return self.width * 2 ** self._tapped_stage(tap)

    @property
    def default_taps(self) -> tuple[int, ...]:
        """The paper's layers: every stage."""
        return tuple(range(1, self.num_layers + 1))

    def default_cells(self, taps: tuple[int, ...]) -> tuple[int, ...]:
        """The paper's scales: each tap's own tokens."""
        return tuple(self.image_size[0] // self.feature_grid(tap)[0] for tap in taps)

    def default_decoder_width(self, tap: int) -> int:
        """The paper's decoder width for a tap: the first has four times the tokens and half the width of the next."""
        return 64 if tap == 1 else 128

    def windows(self, stage: int) -> tuple[int, int]:
        """(side of a window, shift of the odd blocks) in a stage, counted from 0."""
        grid = min(self.grids(self.image_size)[stage])
        if self.window_rule == "shrink" and grid <= self.window:
            return grid, 0
        return self.window, self.window // 2

    def is_packed(self, stage: int) -> bool:
        """Whether visible tokens are packed into groups of whole windows in a stage, counted from 0."""
        return self.sparse_attention is None or self.sparse_attention[stage] == "packed"

    def make(self, rngs: nnx.Rngs) -> "Swin":
        """The encoder with random initial parameters."""
        return Swin(self, rngs=rngs)

    def make_pyramid(self, taps: tuple[int, ...], rngs: nnx.Rngs) -> SwinPyramid:
        """The stages' own maps, each normalized."""
        return SwinPyramid(self, taps, rngs=rngs)

    def for_classification(self) -> Self:
        """With the release's epsilons."""
        return dataclasses.replace(self, epsilon2=1e-5)

    def for_dense(self, relative_and_scale: bool = False) -> Self:
        """With windows that keep their size, taps before patch merging, and epsilon 1e-5 in every norm.

        Raises:
            ConfigError: relative_and_scale, which is a ViT's.
        """
        if relative_and_scale:
            raise ConfigError("model.relative_and_scale is for ViTs: a Swin has relative position biases already")
        return dataclasses.replace(self, window_rule="pad", tap_after_merging=False, epsilon=1e-5, epsilon2=None)

    def encoder_layer(self, path: str) -> int:
        """Blocks are numbered through the stages; a patch merging belongs to the last block of its stage."""
        if block := re.match(r"stages/(\d+)/blocks/(\d+)/", path):
            return sum(self.depths[: int(block[1])]) + int(block[2]) + 1
        if merging := re.match(r"stages/(\d+)/merging/", path):
            return sum(self.depths[: int(merging[1]) + 1])
        return 0


class Stage(nnx.Module):
    """Blocks of one resolution, and the patch merging that ends every stage but the last."""

    def __init__(self, config: SwinConfig, index: int, *, rngs: nnx.Rngs):
        width, (window, _) = config.width * 2**index, config.windows(index)
        block = blocks.BlockConfig(
            width=width,
            num_heads=config.num_heads[index],
            mlp_ratio=config.mlp_ratio,
            epsilon=config.epsilon,
            epsilon2=config.epsilon2,
            dtype=config.dtype,
        )
        self.blocks = nnx.List([SwinBlock(block, window, rngs=rngs) for _ in range(config.depths[index])])
        if index + 1 < config.num_layers:
            self.merging = PatchMerging(width, config.epsilon, dtype=config.dtype, rngs=rngs)


class Swin(nnx.Module):
    """A Swin transformer without a final norm: norms belong to the module that reads a tap."""

    def __init__(self, config: SwinConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.patch_embed = PatchEmbed(
            config.patch_size, config.in_channels, config.width, dtype=config.dtype, rngs=rngs
        )
        self.patch_norm = LayerNorm(config.width, config.epsilon, dtype=config.dtype, rngs=rngs)
        self.stages = nnx.List([Stage(config, index, rngs=rngs) for index in range(config.num_layers)])

    @jax.named_scope("encoder")
    def __call__(
        self,
        images: Float[Array, "b h w c"],
        mask: Mask | None = None,
        taps: tuple[int, ...] = (),
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "b _ _"], ...]:
        """Runs the visible tokens through the stages.

        Args:
            images: normalized by mean and standard deviation. Any size without a mask; that of the config with one.
            mask: over the units of `SwinConfig.mask_grid`; None sees everything.
            taps: stages to read, counted from 1; a stage may be read more than once.
            key: draws the drop path; None means deterministic.

        Returns:
            For every tap its tokens, without a norm. Dense tokens are row-major on
            `SwinConfig.feature_grid(tap, (h, w))`; visible ones unit by unit as in `mask.keep`, row-major in a unit.
        """
        config = self.config
        x = self._embed(images, mask)
        grids = config.grids(images.shape[1:3])
        features, first = {}, 0
        for index, stage in enumerate(list(self.stages)[: max(taps, default=0)]):
            with jax.named_scope(f"stage_{index + 1}"):
                even, odd = self._layouts(index, grids[index], mask)
                last = first + len(stage.blocks)
                (x,) = run_blocks(
                    list(stage.blocks),
                    x,
                    [(even,), (odd,)],
                    None if key is None else DropPaths(key, first + 1, config.drop_path_rates[first:last]),
                    remat=config.remat,
                    scan=config.scan_blocks,
                    every=False,
                )
                first = last
                before, x = x, self._merge(index, x, grids[index], mask)
                features[index + 1] = x if config.tap_after_merging else before
        return tuple(features[tap] for tap in taps)

    def attention(self, images: Float[Array, "b h w c"], measure: blocks.Measure) -> list[Any]:
        """`measure` applied to the attention maps of every block, within windows, for whole images.

        Only one block's maps are in memory at a time, so `measure` should return something small.

        Args:
            images: normalized by mean and standard deviation.
            measure: (weights, group, coordinates), see `blocks.Measure`; a shifted window that the edge of the image
                cuts is several groups.

        Returns:
            One result per block, through the stages.
        """
        x, results = self._embed(images, None), []
        for index, (stage, grid) in enumerate(zip(self.stages, self.config.grids(images.shape[1:3]), strict=True)):
            layouts = self._layouts(index, grid, None)
            for i, block in enumerate(stage.blocks):
                layout = layouts[i % 2]
                assert isinstance(layout, DenseWindows)
                results.append(measure(block.attention.window_weights(block.norm1(x), layout), *layout.places()))
                x = block(x, layout)
            x = self._merge(index, x, grid, None)
        return results

    @jax.named_scope("patch_embed")
    def _embed(self, images: Float[Array, "b h w c"], mask: Mask | None) -> Float[Array, "b n d"]:
        (_, h, w, _), p = images.shape, self.config.patch_size
        keep = None
        if mask is None:
            images = jnp.pad(images, ((0, 0), (0, -h % p), (0, -w % p), (0, 0)))
        else:
            columns = mask.grid[1]
            row, column = token_coordinates(mask.keep, columns, self._unit_side(0))
            keep = row * (w // p) + column
        return self.patch_norm(self.patch_embed(images, keep))

    def _unit_side(self, index: int) -> int:
        """Tokens along a side of a mask unit in a stage."""
        return 2 ** (self.config.num_layers - 1 - index)

    @jax.named_scope("windows")
    def _layouts(self, index: int, grid: tuple[int, int], mask: Mask | None) -> tuple[Layout, Layout]:
        """The layouts of a stage's even and of its odd blocks."""
        config = self.config
        window, shift = config.windows(index)
        if mask is None:
            return DenseWindows(grid, window, 0), DenseWindows(grid, window, shift)
        packed = config.is_packed(index)

        def layout(shift: int) -> Layout:
            return sparse_windows(mask.keep, mask.grid, self._unit_side(index), window, shift, packed)

        even = layout(0)
        return even, layout(shift) if shift and config.depths[index] > 1 else even

    def _merge(
        self, index: int, x: Float[Array, "b n d"], grid: tuple[int, int], mask: Mask | None
    ) -> Float[Array, "b _ _"]:
        if index + 1 == self.config.num_layers:
            return x
        b, _, d = x.shape
        if mask is not None:
            side = self._unit_side(index)
            grid = (side, side)  # the four tokens of a neighborhood always lie in one unit
        return self.stages[index].merging(x.reshape(-1, *grid, d)).reshape(b, -1, 2 * d)
