"""[2] A plain ViT with register tokens and a learned position table.

"Vision Transformers Need Registers" (Darcet et al., ICLR 2024): large ViTs keep global information in patch tokens of
little content, which spoils their feature maps. Learned tokens without a place in the image store it instead. They
follow the class token and, like it, have no position (timm: reg_tokens, no_embed_class=True).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from localmim_jax.errors import ConfigError
from localmim_jax.models import decay
from localmim_jax.models.positions import sincos_2d
from localmim_jax.models.vit import ViT, ViTConfig

VARIANTS = {
    "vit_reg_s": {"width": 384, "depth": 12, "num_heads": 6},
    "vit_reg_b": {"width": 768, "depth": 12, "num_heads": 12},
}

_REGISTERS = r"(^|/)register_tokens$"  # decayed as the class token is: in pre-training alone
WEIGHT_DECAY: Mapping[str, decay.Rules] = {
    task: (*rules, (_REGISTERS, task == "pretrain")) for task, rules in decay.VIT.items()
}


@dataclasses.dataclass(frozen=True)
class ViTRegConfig(ViTConfig):
    """A vision transformer with registers. The defaults are ViT-B/16 with four of them at 224 px.

    Attributes:
        num_registers: register tokens, at least 1.
        position: "learned", in pre-training too; the table starts as sine-cosine embeddings.
    """

    family: ClassVar[str] = "vit_reg"
    label: ClassVar[str] = "ViT with registers"
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = VARIANTS
    weight_decay: ClassVar[Mapping[str, decay.Rules]] = WEIGHT_DECAY
    class_token_has_position: ClassVar[bool] = False

    num_registers: int = 4
    position: Literal["fixed", "learned"] = "learned"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_registers < 1:
            raise ConfigError(f"model.num_registers is {self.num_registers}: at least 1 is needed, or a plain ViT")
        if self.position != "learned":
            raise ConfigError(f"model.position is {self.position!r}: a ViT with registers learns its positions")
        if self.relative_position_bias:
            raise ConfigError("a ViT with registers has no relative position bias: set model.relative_and_scale=False")

    @property
    def num_prefix_tokens(self) -> int:
        """The class token and the registers lead every feature."""
        return 1 + self.num_registers

    def make(self, rngs: nnx.Rngs) -> "ViTReg":
        """The encoder with random initial parameters."""
        return ViTReg(self, rngs=rngs)

    def position_table(self) -> np.ndarray:
        """The first positions of the patches: float32 [n, width]."""
        return sincos_2d(self.grid, self.width)


class ViTReg(ViT):
    """A ViT whose features begin with the class token and the registers."""

    def __init__(self, config: ViTRegConfig, *, rngs: nnx.Rngs):
        super().__init__(config, rngs=rngs)
        tokens = 0.02 * jax.random.normal(rngs.params(), (config.num_registers, config.width))
        self.register_tokens = nnx.Param(tokens)

    def _prefix_and_positions(self, table: jax.Array) -> tuple[jax.Array, jax.Array]:
        tokens = jnp.concatenate([self.class_token[...][None], self.register_tokens[...]])
        return tokens.astype(table.dtype), table
