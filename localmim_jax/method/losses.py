"""[5] Masked mean squared error per tap, summed over taps with equal weights (supplement, section C)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def masked_mean_squared_error(prediction: jax.Array, target: jax.Array, weight: jax.Array) -> jax.Array:
    """sum(weight * mean over channels of (prediction - target)^2) / sum(weight), over the whole batch.

    Args:
        prediction: [b, cells, c], any float dtype; the difference is taken in float32.
        target: float32 [b, cells, c].
        weight: float32 [b, cells] in [0, 1], the masked fraction of each cell.

    Returns:
        float32 scalar; 0 where nothing is masked.
    """
    error = jnp.square(prediction.astype(jnp.float32) - target).mean(axis=-1)
    total = weight.sum()
    return (error * weight).sum() / jnp.where(total > 0, total, 1.0)


def multi_scale_loss(
    predictions: Sequence[jax.Array], targets: Sequence[jax.Array], weights: Sequence[jax.Array]
) -> tuple[jax.Array, list[jax.Array]]:
    """The sum of the taps' losses (float32 scalar), and each of them."""
    losses = [
        masked_mean_squared_error(prediction, target, weight)
        for prediction, target, weight in zip(predictions, targets, weights, strict=True)
    ]
    return jnp.stack(losses).sum(), losses
