"""Which layer a parameter belongs to, for layer-wise learning-rate decay and for training only the last blocks.

Layer 0 is everything before the first block, block i (from 0) is layer i + 1, and what follows the last block is one
layer above it; a Swin's blocks are numbered through its stages, and a patch merging belongs to the last block of its
stage (docs/method.md; the rule is BEiT's).
"""

import re
from collections.abc import Callable

from localmim_jax.errors import ConfigError
from localmim_jax.models.swin import SwinConfig
from localmim_jax.models.vit import ViTConfig


def layer_of(encoder: ViTConfig | SwinConfig) -> Callable[[str], int]:
    """(path in a model with an `encoder`) -> its layer, from 0 to the number of blocks plus 1."""
    depths = (encoder.depth,) if isinstance(encoder, ViTConfig) else encoder.depths

    def layer(path: str) -> int:
        if not path.startswith("encoder/"):
            return sum(depths) + 1
        if block := re.match(r"encoder/(?:stages/(\d+)/)?blocks/(\d+)/", path):
            return sum(depths[: int(block[1] or 0)]) + int(block[2]) + 1
        if merging := re.match(r"encoder/stages/(\d+)/merging/", path):
            return sum(depths[: int(merging[1]) + 1])
        return 0

    return layer


def last_blocks(encoder: ViTConfig | SwinConfig, trained: int | None) -> Callable[[str], bool]:
    """(path) -> whether it is trained, when only the last `trained` blocks and what follows them are; None trains all.

    Raises:
        ConfigError: the encoder has fewer blocks, or the number is negative.
    """
    if trained is None:
        return lambda path: True
    layer = layer_of(encoder)
    total = layer("head") - 1
    if not 0 <= trained <= total:
        raise ConfigError(f"model.trained_blocks is {trained}; it must be from 0 (the head alone) to {total}, or None")
    return lambda path: layer(path) > total - trained
