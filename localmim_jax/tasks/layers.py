"""Which parameters are trained when only the last blocks are."""

from collections.abc import Callable

from localmim_jax.errors import ConfigError
from localmim_jax.models.base import EncoderConfig


def last_blocks(encoder: EncoderConfig, trained: int | None) -> Callable[[str], bool]:
    """(path) -> whether it is trained, when only the last `trained` blocks and what follows them are; None trains all.

    Raises:
        ConfigError: the encoder has fewer blocks, or the number is negative.
    """
    if trained is None:
        return lambda path: True
    total = encoder.num_blocks
    if not 0 <= trained <= total:
        raise ConfigError(f"model.trained_blocks is {trained}; it must be from 0 (the head alone) to {total}, or None")
    return lambda path: encoder.layer_of(path) > total - trained
