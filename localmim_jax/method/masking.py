"""[1] Which parts of an image the encoder does not see, and that mask at any other scale.

A mask is drawn over *units* on a coarse grid: for ViT a unit is one patch, for Swin a 32 px square (paper, section 3;
supplement, section C). The same number of units is kept in every image, so all shapes are static.
"""

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, Float32, PRNGKeyArray

from localmim_jax.errors import ConfigError
from localmim_jax.models.mask import Mask
from localmim_jax.ops.move import move


def num_visible(grid: tuple[int, int], mask_ratio: float) -> int:
    """How many units stay visible: int(n * (1 - ratio)), the release's rounding (49 of 196 and 12 of 49 at 0.75).

    Raises:
        ConfigError: nothing would be visible, or nothing masked.
    """
    n = grid[0] * grid[1]
    keep = int(n * (1 - mask_ratio))
    if not 0 < keep < n:
        raise ConfigError(
            f"model.mask_ratio {mask_ratio} keeps {keep} of the {n} mask units of a {grid[0]}x{grid[1]} grid: "
            f"choose a ratio from above 0 to at most {1 - 1 / n:.4f}"
        )
    return keep


def mask_from_noise(noise: Float32[Array, "m n"], grid: tuple[int, int], keep: int) -> Mask:
    """The mask that keeps the `keep` units with the smallest noise.

    Args:
        noise: one number for each of the n units.
        grid: (rows, columns) of the unit grid.
        keep: number of visible units.
    """
    order = jnp.argsort(noise, axis=1)
    restore = jnp.argsort(order, axis=1)
    masked = (restore >= keep).astype(jnp.float32)
    return Mask(
        keep=order[:, :keep].astype(jnp.int32),
        restore=restore.astype(jnp.int32),
        masked=masked.reshape(-1, *grid),
    )


def random_mask(key: PRNGKeyArray, num_masks: int, grid: tuple[int, int], mask_ratio: float) -> Mask:
    """Uniformly random masks, each keeping `num_visible(grid, mask_ratio)` units. Mask i depends on key and i alone."""
    keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(jnp.arange(num_masks))
    noise = jax.vmap(lambda key: jax.random.uniform(key, (grid[0] * grid[1],)))(keys)
    return mask_from_noise(noise, grid, num_visible(grid, mask_ratio))


def check_num_masks(num_masks: int, batch: int, num_shards: int) -> None:
    """Refuses shared masks that cannot each cover a whole slice of the batch without crossing devices unevenly.

    Args:
        num_masks: masks per (micro-)batch.
        batch: global examples per (micro-)batch.
        num_shards: devices that the batch is split over.

    Raises:
        ConfigError: num_masks does not divide the batch, or neither divides nor is divided by num_shards.
    """
    legal = [n for n in range(1, batch + 1) if batch % n == 0 and (n % num_shards == 0 or num_shards % n == 0)]
    if num_masks not in legal:
        raise ConfigError(
            f"model.num_masks is {num_masks}, but {batch} images a (micro-)batch over {num_shards} devices can share "
            f"{', '.join(map(str, legal))} masks: choose one of these"
        )


def to_grid(tokens: Float[Array, "b n d"], mask: Mask, fill: Float[Array, " d"]) -> Float[Array, "b y x d"]:
    """Puts visible tokens back to their places and `fill` everywhere else.

    Args:
        tokens: the visible units in the order of `mask.keep`, each with its s x s tokens in row-major order (s is 1
            for ViT, 32 px over the stage's stride for Swin).
        mask: the m masks that the tokens were selected with; m divides b.
        fill: the learned mask token.

    Returns:
        The whole grid, s rows and columns for each unit, in the dtype of tokens.
    """
    b, n, d = tokens.shape
    (rows, columns), (m, k) = mask.grid, mask.keep.shape
    s = round((n // k) ** 0.5)
    # Not one gather of the visible and the filler: its gradient would add up the filler's in any order, atomically.
    units = move(tokens.reshape(m, b // m, k, s * s * d), mask.restore, mask.keep)
    units = rearrange(units, "m r n (t d) -> m r n t d", t=s * s)
    filler = jnp.broadcast_to(fill.reshape(1, 1, 1, 1, -1), units.shape).astype(tokens.dtype)
    units = jnp.where(mask.masked.reshape(m, 1, -1, 1, 1) > 0, filler, units)
    return rearrange(units, "m r (y x) (i j) d -> (m r) (y i) (x j) d", y=rows, x=columns, i=s, j=s)
