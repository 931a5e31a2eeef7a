"""[5] Masked mean squared error at every scale, summed over the scales with equal weights (supplement, section C)."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32


def masked_mean_squared_error(
    prediction: Float[Array, "b n c"], target: Float32[Array, "b n c"], weight: Float32[Array, "b n"]
) -> Float32[Array, ""]:
    """sum(weight * mean over channels of (prediction - target)^2) / sum(weight), over the whole batch.

    Args:
        prediction: predicted cells; the difference is taken in float32.
        target: target cells.
        weight: the masked fraction of each cell, in [0, 1].

    Returns:
        The error; 0 where nothing is masked.
    """
    error = jnp.square(prediction.astype(jnp.float32) - target).mean(axis=-1)
    total = weight.sum()
    return (error * weight).sum() / jnp.where(total > 0, total, 1.0)


def multi_scale_loss(
    predictions: Sequence[Float[Array, "b _ _"]],
    targets: Sequence[Float32[Array, "b _ _"]],
    weights: Sequence[Float32[Array, "b _"]],
) -> tuple[Float32[Array, ""], list[Float32[Array, ""]]]:
    """The sum of the scales' losses, and each of them."""
    losses = [
        masked_mean_squared_error(prediction, target, weight)
        for prediction, target, weight in zip(predictions, targets, weights, strict=True)
    ]
    return jnp.stack(losses).sum(), losses
