"""Feature fusion (supplement, A.2): several layers are fused into one feature for a single, global reconstruction.

The paper describes no architecture. We use the simplest one that works for ViT and Swin (docs/method.md): the mean
over the tokens that make up one token of the top grid; a linear projection of every layer's feature, not normalized, to
the top width; and the sum over layers. The top tap's norm, the first thing in its decoder, follows.
"""

import jax
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from localmim_jax.models import blocks
from localmim_jax.models.base import EncoderConfig


class Fusion(nnx.Module):
    """Features of `layers` of visible tokens -> one feature in the grid and width of layer `top`.

    Args:
        encoder: what makes the features.
        layers: counted from 1, none above `top`.
        top: the layer whose place the result takes.
    """

    def __init__(self, encoder: EncoderConfig, layers: tuple[int, ...], top: int, *, rngs: nnx.Rngs):
        width = encoder.feature_width(top)
        rows = encoder.feature_grid(top)[0]
        self.factors = tuple(encoder.feature_grid(layer)[0] // rows for layer in layers)
        self.unit_side = rows // encoder.mask_grid[0]
        self.projections = nnx.List(
            [blocks.linear(encoder.feature_width(layer), width, dtype=encoder.dtype, rngs=rngs) for layer in layers]
        )

    @jax.named_scope("fusion")
    def __call__(self, features: tuple[Float[Array, "b _ _"], ...]) -> Float[Array, "b n d"]:
        """One feature, shaped like layer `top`'s, from one for each layer as the encoder returns them with a mask."""
        projected = [
            project(self._pool(feature, factor))
            for project, feature, factor in zip(self.projections, features, self.factors, strict=True)
        ]
        return sum(projected[1:], projected[0])

    def _pool(self, x: Float[Array, "b n d"], factor: int) -> Float[Array, "b n//{factor*factor} d"]:
        """The mean of every factor x factor neighborhood. Tokens come mask unit by mask unit, row-major inside."""
        if factor == 1:
            return x
        side = self.unit_side
        x = rearrange(x, "b (n y i x j) d -> b n y i x j d", y=side, i=factor, x=side, j=factor).mean(axis=(3, 5))
        return rearrange(x, "b n y x d -> b (n y x) d")
