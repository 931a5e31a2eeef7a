"""What a device can do at most, measured: the rate of one large matrix product."""

import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp


def matmul_flops(dtype: str, side: int = 8192, rounds: int = 10) -> float:
    """FLOP/s of the product of two square matrices of random numbers, on one device: the median of several."""
    left, right = (jax.random.normal(jax.random.key(i), (side, side), jnp.dtype(dtype)) for i in range(2))
    product = jax.jit(lambda a, b: a @ b)
    return 2.0 * side**3 / _median_seconds(lambda: product(left, right), rounds)


def _median_seconds(function: Callable[[], jax.Array], rounds: int, calls: int = 10) -> float:
    """Of one call, several being in flight at a time, so that starting them costs nothing."""
    seconds = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        for _ in range(calls):
            result = function()
        jax.block_until_ready(result)
        seconds.append((time.perf_counter() - start) / calls)
    return statistics.median(seconds[1:])
