"""The registry of backbones: every kind, and every published size by name."""

from collections.abc import Mapping
from typing import Any

from localmim_jax.models.base import EncoderConfig
from localmim_jax.models.swin import SwinConfig
from localmim_jax.models.vit import ViTConfig
from localmim_jax.models.vit_reg import ViTRegConfig

KINDS: dict[str, type[EncoderConfig]] = {kind.family: kind for kind in (ViTConfig, SwinConfig, ViTRegConfig)}

# name: (kind of backbone, fields of its config)
VARIANTS: dict[str, tuple[type[EncoderConfig], Mapping[str, Any]]] = {
    name: (kind, sizes) for kind in KINDS.values() for name, sizes in kind.variants.items()
}
