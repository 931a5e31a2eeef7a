"""Which layer a parameter belongs to, for layer-wise learning-rate decay and for training only the last blocks.

Layer 0 is everything before the first block, block i (from 0) is layer i + 1, and what follows the last block is one
layer above it (docs/method.md; the rule is BEiT's).
"""

import re
from collections.abc import Callable

from localmim_jax.backbones.vit import ViTConfig
from localmim_jax.errors import ConfigError


def layer_of(encoder: ViTConfig) -> Callable[[str], int]:
    """(path in a model with an `encoder`) -> its layer, from 0 to the number of blocks plus 1."""

    def vit_layer(path: str) -> int:
        if not path.startswith("encoder/"):
            return encoder.depth + 1
        block = re.match(r"encoder/blocks/(\d+)/", path)
        return int(block[1]) + 1 if block else 0

    return vit_layer


def num_blocks(encoder: ViTConfig) -> int:
    """All blocks of the encoder, over all stages."""
    return encoder.depth


def last_blocks(encoder: ViTConfig, trained: int | None) -> Callable[[str], bool]:
    """(path) -> whether it is trained, when only the last `trained` blocks and what follows them are; None trains all.

    Raises:
        ConfigError: the encoder has fewer blocks, or the number is negative.
    """
    total, layer = num_blocks(encoder), layer_of(encoder)
    if trained is None:
        return lambda path: True
    if not 0 <= trained <= total:
        raise ConfigError(f"model.trained_blocks is {trained}; it must be from 0 (the head alone) to {total}, or None")
    return lambda path: layer(path) > total - trained
