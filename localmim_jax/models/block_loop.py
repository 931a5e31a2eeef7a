"""Equal blocks, one after another: unrolled, or as a loop whose body is compiled once.

Unrolled, a compiler may fuse across blocks, and sees each block anew: its time grows with the depth. As a loop the
blocks' parameters are stacked first, and their gradients unstacked last. Both compute the same numbers.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from localmim_jax.models.blocks import DropPath, run_block


@dataclasses.dataclass(frozen=True)
class DropPaths:
    """Stochastic depth of a sequence of blocks.

    Attributes:
        key: from which each block's key is derived, by its number.
        first: number of the first block.
        rates: of every block, in [0, 1).
    """

    key: PRNGKeyArray
    first: int
    rates: tuple[float, ...]

    def of(self, index: int) -> DropPath:
        """Of one block, counted from 0."""
        return DropPath(jax.random.fold_in(self.key, self.first + index), 1 - self.rates[index])


def run_blocks(
    blocks: Sequence[nnx.Module],
    x: Float[Array, "b n d"],
    inputs: Sequence[tuple[Any, ...]],
    drops: DropPaths | None,
    *,
    remat: bool,
    scan: bool,
    every: bool,
) -> list[Float[Array, "b n d"]]:
    """The outputs of all blocks if `every`, else only that of the last.

    Args:
        blocks: of equal structure and sizes.
        inputs: what each block takes between the tokens and its `DropPath`; block i takes `inputs[i % len(inputs)]`.
        drops: None for none.
        remat: as in `run_block`.
        scan: a loop over groups of `len(inputs)` blocks. What is left, and a single group, is unrolled.
    """
    period = len(inputs)
    looped = len(blocks) // period * period if scan and len(blocks) >= 2 * period else 0
    outputs = []
    if looped:
        outputs = _loop(blocks[:looped], x, inputs, drops, remat, every)
        x = outputs[-1]
    for i in range(looped, len(blocks)):
        with jax.named_scope(f"block_{i + 1:02d}"):
            drop = None if drops is None else drops.of(i)
            x = run_block(blocks[i], remat, x, *inputs[i % period], drop)
        outputs.append(x)
    return outputs if every else outputs[-1:]


def _loop(
    blocks: Sequence[nnx.Module],
    x: Float[Array, "b n d"],
    inputs: Sequence[tuple[Any, ...]],
    drops: DropPaths | None,
    remat: bool,
    every: bool,
) -> list[Float[Array, "b n d"]]:
    period, turns = len(inputs), len(blocks) // len(inputs)
    graphdefs: Any = [nnx.graphdef(block) for block in blocks[:period]]
    states = [nnx.state(block) for block in blocks]
    # [turn, ...] of every parameter of the period's blocks.
    stacks = [jax.tree.map(lambda *leaves: jnp.stack(leaves), *states[place::period]) for place in range(period)]
    numbers = keeps = None
    if drops is not None:
        numbers = jnp.arange(drops.first, drops.first + len(blocks)).reshape(turns, period)
        keeps = jnp.asarray([1 - rate for rate in drops.rates[: len(blocks)]], jnp.float32).reshape(turns, period)

    def turn(x: jax.Array, sliced: Any) -> tuple[jax.Array, list[jax.Array] | None]:
        states, numbers, keeps = sliced
        found = []
        for place in range(period):
            drop = None
            if drops is not None:
                drop = DropPath(jax.random.fold_in(drops.key, numbers[place]), keeps[place])
            x = run_block(nnx.merge(graphdefs[place], states[place]), remat, x, *inputs[place], drop)
            found.append(x)
        return x, found if every else None

    with jax.named_scope("block_loop"):
        x, found = jax.lax.scan(turn, x, (stacks, numbers, keeps))
    return [found[i % period][i // period] for i in range(len(blocks))] if found is not None else [x]
