"""Which parts of each image an encoder sees, and that mask at any other scale."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32

from localmim_jax.errors import ConfigError


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mask:
    """The masks of a batch: m of them, the i-th shared by images i * b / m to (i + 1) * b / m (one each where m is b).

    Attributes:
        keep: indices of the k visible units (row-major on the unit grid), in the encoder's order.
        restore: position of each unit in the shuffled order; below k where the unit is visible.
        masked: 1 where the unit is masked, 0 where it is visible.
    """

    keep: Int32[Array, "m k"]
    restore: Int32[Array, "m n"]
    masked: Float32[Array, "m rows columns"]

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of the unit grid."""
        return self.masked.shape[1], self.masked.shape[2]

    def per_image(self, batch: int) -> "Mask":
        """The same masks, one for each of `batch` images (a multiple of m)."""
        times = batch // self.keep.shape[0]
        return self if times == 1 else jax.tree.map(lambda array: jnp.repeat(array, times, axis=0), self)

    def resized_to(self, grid: tuple[int, int]) -> Float32[Array, "m {grid[0]*grid[1]}"]:
        """The masked fraction of every cell of another grid, in [0, 1].

        Finer grids repeat a unit's value, coarser ones average it (docs/method.md).

        Raises:
            ConfigError: neither grid divides the other.
        """
        cells = self.masked
        for axis, (size, wanted) in enumerate(zip(self.grid, grid, strict=True), start=1):
            if wanted % size == 0:
                cells = jnp.repeat(cells, wanted // size, axis=axis)
            elif size % wanted == 0:
                shape = (*cells.shape[:axis], wanted, size // wanted, *cells.shape[axis + 1 :])
                cells = cells.reshape(shape).mean(axis + 1)
            else:
                raise ConfigError(f"mask grid {self.grid} cannot be resized to {grid}: neither divides the other")
        return cells.reshape(cells.shape[0], -1)
