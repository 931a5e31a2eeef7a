"""Encoders: the keys of `config.model` that every task has. `changes` override them, as in `vit("vit_ti", depth=6)`."""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def vit(variant: str, **changes: Any) -> ConfigDict:
    """A ViT: "vit_ti", "vit_s", "vit_b" or "vit_l"."""
    encoder = _encoder(variant)
    encoder.patch_size = 16
    encoder.depth = placeholder(int)  # None: the variant's, here and for width and num_heads
    encoder.num_heads = placeholder(int)
    encoder.num_registers = placeholder(int)  # register tokens of a vit_reg; None: 4
    return _changed(encoder, changes)


def swin(variant: str, **changes: Any) -> ConfigDict:
    """A Swin: "swin_t", "swin_s", "swin_b" or "swin_l". The release's Swin-L has windows of 14."""
    encoder = _encoder(variant)
    encoder.patch_size = 4
    encoder.depths = placeholder(tuple)  # blocks of each stage; None: the variant's
    encoder.num_heads = placeholder(tuple)  # of each stage; None: the variant's
    encoder.window = 7  # tokens along a side
    return _changed(encoder, changes)


def is_swin(encoder: ConfigDict) -> bool:
    """Whether the keys are a Swin's rather than a ViT's."""
    return "depths" in encoder


def add_epsilon(model: ConfigDict) -> None:
    """The key of the layer norms' epsilon, for tasks that start from weights of others."""
    model.epsilon = placeholder(float)  # None: 1e-6; timm's and Transformers' Swin have 1e-5, Transformers' ViT 1e-12


def _encoder(variant: str) -> ConfigDict:
    encoder = ConfigDict()
    encoder.variant = variant
    encoder.width = placeholder(int)  # None: the variant's
    encoder.mlp_ratio = 4.0
    encoder.drop_path = 0.0
    encoder.dtype = "bfloat16"  # of the computation; parameters, norms, softmax, targets and loss are float32
    encoder.remat = False
    encoder.scan_blocks = placeholder(bool)  # equal blocks as a loop, compiled once; None: on TPUs
    encoder.attention = "auto"  # cuDNN's fused kernel where there is one (NVIDIA, 16-bit dtype), else XLA's
    return encoder


def _changed(encoder: ConfigDict, changes: dict[str, Any]) -> ConfigDict:
    encoder.lock()  # an unknown key is a typo
    encoder.update(changes)
    return encoder.unlock()
