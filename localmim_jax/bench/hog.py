"""Time the HOG targets of all scales against one scale at a time.

    localmim bench hog [--batch=16] [--size=224] [--bins=18]

The straightforward method convolves, bins and scatters votes into cells once per scale. Both methods are compiled.
Times are medians of alternating runs in one process, so their ratio is reliable on a noisy machine.
"""

import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from absl import flags

from localmim_jax.errors import ConfigError
from localmim_jax.method.targets import hog_pyramid

CELLS = (4, 8, 16, 32)


def scattered_hog(images: jax.Array, cell: int, bins: int) -> jax.Array:
    """HOG of one scale by convolution and scatter: float32 [b, cells, c * bins]."""
    b, h, w, c = images.shape
    sobel = jnp.asarray([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
    kernel = jnp.stack([sobel, sobel.T], axis=-1)[:, :, None, :]
    planes = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect").transpose(0, 3, 1, 2)
    planes = planes.reshape(b * c, h + 2, w + 2, 1)
    gradients = jax.lax.conv_general_dilated(
        planes, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    gx, gy = gradients[..., 0], gradients[..., 1]
    orientation = jnp.floor(jnp.arctan2(gx, gy) / jnp.pi * bins).astype(jnp.int32) % bins
    plane, row, column = jnp.meshgrid(jnp.arange(b * c), jnp.arange(h) // cell, jnp.arange(w) // cell, indexing="ij")
    votes = jnp.zeros((b * c, h // cell, w // cell, bins))
    votes = votes.at[plane, row, column, orientation].add(jnp.hypot(gx, gy)) / cell**2
    votes /= jnp.maximum(jnp.linalg.norm(votes, axis=-1, keepdims=True), 1e-12)
    return votes.reshape(b, c, -1, bins).transpose(0, 2, 1, 3).reshape(b, -1, c * bins)


def seconds(function: Callable[[jax.Array], object], images: jax.Array) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function(images))
    return time.perf_counter() - start


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_integer("batch", 16, "number of images", flag_values=values, lower_bound=1)
    flags.DEFINE_integer("size", 224, "side in pixels, a multiple of 32", flag_values=values, lower_bound=32)
    flags.DEFINE_integer("bins", 18, "orientation bins", flag_values=values, lower_bound=1)
    flags.DEFINE_integer("runs", 9, "timed runs of each method", flag_values=values, lower_bound=1)


def main(options: flags.FlagValues) -> None:
    if options.size % max(CELLS):
        raise ConfigError(f"--size={options.size}: it must be a multiple of {max(CELLS)}")
    images = jax.random.normal(jax.random.key(0), (options.batch, options.size, options.size, 3))
    pyramid = jax.jit(lambda x: hog_pyramid(x, CELLS, options.bins))
    scattered = jax.jit(lambda x: tuple(scattered_hog(x, cell, options.bins) for cell in CELLS))
    for a, b in zip(pyramid(images), scattered(images), strict=True):
        share = float(jnp.mean(jnp.abs(a - b) > 1e-3))
        # Borders fall on bin boundaries, where a convolution's rounding votes either way; elsewhere both agree.
        assert share < 0.15, f"the two ways disagree on {share:.1%} of the values"
    times = [(seconds(pyramid, images), seconds(scattered, images)) for _ in range(options.runs)]
    ours, theirs = (statistics.median(column) for column in zip(*times, strict=True))
    print(
        f"{jax.devices()[0].device_kind}, batch {options.batch}, {options.size} px, {options.bins} bins, cells {CELLS}"
    )
    print(f"pyramid        {1000 * ours:8.1f} ms")
    print(f"scale by scale {1000 * theirs:8.1f} ms   {theirs / ours:.1f}x")
