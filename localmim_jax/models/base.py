"""The interface of encoders and whole models. The core asks a config and never checks its class.

A new backbone is an `EncoderConfig`, the module that its `make` builds, and an entry in `registry.KINDS`.
"""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Protocol, Self

import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from localmim_jax.errors import ConfigError
from localmim_jax.models.blocks import Measure
from localmim_jax.models.decay import Rules
from localmim_jax.models.info import ModelInfo
from localmim_jax.models.mask import Mask


class Encoder(Protocol):
    """The module that `EncoderConfig.make` builds: images, an optional mask, layers to tap -> one feature per tap."""

    def __call__(
        self,
        images: Float[Array, "b h w c"],
        mask: Mask | None = None,
        taps: tuple[int, ...] = (),
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "b _ _"], ...]:
        """For every tap its tokens without a norm: [b, num_prefix_tokens + n, feature_width(tap)].

        Args:
            images: normalized by mean and standard deviation.
            mask: masks over the units of `EncoderConfig.mask_grid`; None sees everything.
            taps: layers to read, counted from 1.
            key: draws the drop path; None means deterministic.
        """
        ...

    def attention(self, images: Float[Array, "b h w c"], measure: Measure) -> list[Any]:
        """`measure` applied to the attention maps of every block, for whole images."""
        ...


class Pyramid(Protocol):
    """The module that `EncoderConfig.make_pyramid` builds: four tapped features -> four maps, finest first."""

    def __call__(
        self, features: tuple[Float[Array, "b _ _"], ...], image_size: tuple[int, int], train: bool = False
    ) -> tuple[Float[Array, "b _ _ _"], ...]:
        """Four maps from the tokens of four taps, prefix tokens included.

        Args:
            features: the tapped features.
            image_size: (h, w) of the images in pixels.
            train: whether batch norms use the batch's statistics.
        """
        ...


class EncoderConfig(abc.ABC):
    """A backbone's configuration: a frozen dataclass with these fields and its own sizes.

    Attributes:
        family: name of the kind in `registry.KINDS`, in saved files and in `convert`.
        label: the kind's name in messages.
        variants: name of each published size -> its fields.
        has_class_token: whether the first prefix token is a class token, which `ClassifierConfig.pool` may read.
        class_token_has_position: whether the first row of the position table is the class token's.
        fixed_image_size: whether the positions have one size, so that other images need another model.
        dense_patch_size: patch size in pixels with which the pyramid has strides 4, 8, 16 and 32.
        prediction_init: initialization of the decoders' predictions, see `method.decoders`.
        weight_decay: task -> rules over parameter paths, see `models.decay`.
        image_size: (h, w) in pixels.
        patch_size: side of a patch in pixels.
        in_channels: color channels of an image.
        epsilon: layer-norm epsilon.
        dtype: compute dtype; parameters are float32.
        drop_path: stochastic depth of the last block; the blocks before it ramp up to it linearly from 0.
        remat: recompute each block's activations in the backward pass.
        scan_blocks: whether equal blocks run as a loop, see `models.block_loop`.
        attention: "xla" or "cudnn".
    """

    family: ClassVar[str]
    label: ClassVar[str]
    variants: ClassVar[Mapping[str, Mapping[str, Any]]]
    has_class_token: ClassVar[bool]
    class_token_has_position: ClassVar[bool] = False
    fixed_image_size: ClassVar[bool]
    dense_patch_size: ClassVar[int]
    prediction_init: ClassVar[Literal["conv", "linear"]]
    weight_decay: ClassVar[Mapping[str, Rules]]
    image_size: tuple[int, int]
    patch_size: int
    in_channels: int
    epsilon: float
    dtype: Any
    drop_path: float
    remat: bool
    scan_blocks: bool
    attention: Literal["xla", "cudnn"]

    @abc.abstractmethod
    def make(self, rngs: nnx.Rngs) -> Any:
        """The encoder with random initial parameters, an `Encoder`."""

    @abc.abstractmethod
    def make_pyramid(self, taps: tuple[int, ...], rngs: nnx.Rngs) -> Any:
        """The module that turns the features of four taps into maps of strides 4, 8, 16 and 32, a `Pyramid`."""

    @property
    @abc.abstractmethod
    def num_prefix_tokens(self) -> int:
        """Leading tokens of every feature that have no place in the image."""

    @property
    @abc.abstractmethod
    def num_layers(self) -> int:
        """How many layers can be tapped."""

    @property
    @abc.abstractmethod
    def num_blocks(self) -> int:
        """How many blocks there are, each a layer of layer-wise learning-rate decay."""

    @property
    def drop_path_rates(self) -> tuple[float, ...]:
        """The stochastic depth of every block."""
        return tuple(self.drop_path * i / max(self.num_blocks - 1, 1) for i in range(self.num_blocks))

    @property
    @abc.abstractmethod
    def mask_grid(self) -> tuple[int, int]:
        """(rows, columns) of mask units. Raises ConfigError: the image is not a multiple of a unit."""

    @abc.abstractmethod
    def feature_grid(self, tap: int, image_size: tuple[int, int] | None = None) -> tuple[int, int]:
        """(rows, columns) of the tokens of a tap, for images of `image_size` (None: the config's)."""

    @abc.abstractmethod
    def feature_width(self, tap: int) -> int:
        """Channels of the tokens of a tap."""

    @property
    @abc.abstractmethod
    def default_taps(self) -> tuple[int, ...]:
        """The paper's layers, counted from 1."""

    @abc.abstractmethod
    def default_cells(self, taps: tuple[int, ...]) -> tuple[int, ...]:
        """The paper's target cell of every tap, in pixels. Raises ConfigError: the paper has none for these taps."""

    @abc.abstractmethod
    def default_decoder_width(self, tap: int) -> int:
        """The paper's decoder width for a tap."""

    @property
    @abc.abstractmethod
    def heads(self) -> tuple[int, ...]:
        """Attention heads, one number, or one per stage."""

    @abc.abstractmethod
    def encoder_layer(self, path: str) -> int:
        """Layer of a parameter below "encoder/", see `layer_of`."""

    @abc.abstractmethod
    def for_classification(self) -> Self:
        """The encoder as fine-tuning and probing use it."""

    @abc.abstractmethod
    def for_dense(self, relative_and_scale: bool = False) -> Self:
        """The encoder as segmentation and detection use it.

        Args:
            relative_and_scale: whether a ViT gets the release's relative position bias and layer scale.
        """

    def fixed_parameters(self) -> dict[str, np.ndarray]:
        """Values that are computed here but are parameters in other uses of the encoder: path in it -> value."""
        return {}

    def layer_of(self, path: str) -> int:
        """Layer of a parameter of a whole model, for layer-wise learning-rate decay.

        Layer 0 is everything before the first block, block i (from 0) is layer i + 1, and what follows the last block
        is one layer above it (docs/method.md; the rule is BEiT's).

        Args:
            path: the parameter's path in a model that has the encoder as "encoder".

        Returns:
            0 to num_blocks + 1.
        """
        if not path.startswith("encoder/"):
            return self.num_blocks + 1
        return self.encoder_layer(path.removeprefix("encoder/"))

    def pyramid_taps(self, taps: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """The four layers that a feature pyramid reads, counted from 1: `taps`, or the paper's.

        Raises:
            ConfigError: there are not four, the encoder lacks one, or its map would be empty.
        """
        taps = self.default_taps if taps is None else taps
        if len(taps) != 4 or not all(1 <= tap <= self.num_layers for tap in taps):
            raise ConfigError(
                f"a feature pyramid reads four layers, and model.taps={taps} of an encoder of {self.num_layers} layers "
                "are not: set model.taps, or take a deeper encoder (a Swin of four stages)"
            )
        return taps

    def describe(self) -> ModelInfo:
        """A description of the encoder alone."""
        h, w = self.image_size
        return ModelInfo(self.family, "encoder", (h, w), self.heads, epsilon=self.epsilon)


class ModelConfig(abc.ABC):
    """The configuration of a whole model, a frozen dataclass with an `encoder`.

    Attributes:
        kind: `ModelInfo.kind` of the model.
        has_features: whether the module has `features(images)`, one vector per image.
        with_statistics: whether batch-norm statistics are saved and transferred with the parameters.
        new_parameters: patterns of paths in the encoder that a pre-trained encoder may lack.
        position_interpolation: how positions are resized to the model's grid.
        encoder: the backbone.
    """

    kind: ClassVar[str]
    has_features: ClassVar[bool] = True
    with_statistics: ClassVar[bool] = False
    new_parameters: ClassVar[tuple[str, ...]] = ()
    position_interpolation: ClassVar[Literal["bicubic", "bilinear"]] = "bicubic"
    encoder: EncoderConfig

    @abc.abstractmethod
    def make(self, rngs: nnx.Rngs) -> nnx.Module:
        """The model with random initial parameters."""

    def describe(self) -> ModelInfo:
        """A description of the model."""
        return dataclasses.replace(self.encoder.describe(), kind=self.kind)
