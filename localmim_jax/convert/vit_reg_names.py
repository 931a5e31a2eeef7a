"""Names of a ViT with registers in files of timm: a ViT's, and `reg_token`; `pos_embed` is of the patches alone."""

import dataclasses

import numpy as np

from localmim_jax.convert import names, vit_names
from localmim_jax.convert.naming import Arrays, Naming, Scheme, TimmModel, TransformersModel
from localmim_jax.convert.weights import Weights

REGISTERS = ("encoder/register_tokens", "reg_token", "positions")  # a table of tokens has a table's layout
ENCODER = (*vit_names.ENCODER, REGISTERS)


class ViTRegNaming(vit_names.ViTNaming):
    """The names of a ViT with registers."""

    encoder = ENCODER
    num_prefix_positions = 0

    def recognize(self, arrays: Arrays, origin: str) -> Scheme | None:
        """timm's names, with or without a class token."""
        scheme = super().recognize(arrays, origin) if "reg_token" in arrays else None
        if scheme is None or "reg_token" not in (arrays if scheme.arrays is None else scheme.arrays):
            return None
        info = dataclasses.replace(scheme.info, family="vit_reg")
        return dataclasses.replace(scheme, info=info, rules=(*scheme.rules, REGISTERS))

    def rules(self, weights: Weights) -> names.Rules:
        """A ViT's, and the registers'."""
        return (*super().rules(weights), REGISTERS)

    def timm_model(self, weights: Weights) -> TimmModel:
        """timm's VisionTransformer, whose prefix has no positions."""
        model = super().timm_model(weights)
        registers = len(weights.arrays["encoder/register_tokens"])
        return dataclasses.replace(model, settings=model.settings | {"reg_tokens": registers, "no_embed_class": True})

    def release(self, weights: Weights) -> dict[str, np.ndarray]:
        """The release has no registers."""
        return Naming.release(self, weights)

    def transformers(self, weights: Weights) -> TransformersModel:
        """Transformers' ViT has no registers."""
        return Naming.transformers(self, weights)


NAMING = ViTRegNaming()
