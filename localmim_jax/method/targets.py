"""[4] What the decoders reconstruct: histograms of oriented gradients, or normalized pixels, at every scale.

Constants are the release's (docs/method.md): unsigned orientation, nearest bin, all of the magnitude to one bin, no
block normalization.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange, reduce
from jaxtyping import Array, Float, Float32, UInt8

from localmim_jax.errors import ConfigError

_EPSILON = 1e-12  # smallest L2 norm of a HOG cell
_VARIANCE_EPSILON = 1e-6  # added to the variance of a pixel patch


@dataclasses.dataclass(frozen=True)
class TargetConfig:
    """What to reconstruct.

    Attributes:
        kind: "hog" or "pixels".
        cells: side of the target cell of each tapped layer, in pixels.
        bins: orientation bins of HOG.
        hog_bias: the release's frozen (gx, gy) bias of each scale's gradient filter; None for none.
    """

    kind: Literal["hog", "pixels"]
    cells: tuple[int, ...]
    bins: int
    hog_bias: tuple[tuple[float, float], ...] | None

    def __post_init__(self) -> None:
        if self.kind not in ("hog", "pixels"):
            raise ConfigError(f"model.target.kind is {self.kind!r}: choose 'hog' or 'pixels'")
        if self.kind == "hog" and not 1 <= self.bins <= 256:
            raise ConfigError(f"model.target.bins is {self.bins}: choose 1 to 256 orientation bins")
        if any(cell < 1 for cell in self.cells):
            raise ConfigError(f"model.target.cells {self.cells}: every cell is a positive number of pixels")
        if self.hog_bias is not None and self.kind != "hog":
            raise ConfigError("model.target.hog_bias is only for HOG targets: leave it unset for pixels")
        if self.hog_bias is not None and len(self.hog_bias) != len(self.cells):
            raise ConfigError(
                f"model.target.hog_bias has {len(self.hog_bias)} (gx, gy) pairs for {len(self.cells)} scales: "
                "one pair per scale is needed"
            )

    def channels(self, cell: int, in_channels: int) -> int:
        """Length of the target vector of one cell."""
        return in_channels * (self.bins if self.kind == "hog" else cell * cell)


def make_targets(images: Float[Array, "b h w c"], config: TargetConfig) -> tuple[Float32[Array, "b _ _"], ...]:
    """The targets of every scale, without gradient.

    Args:
        images: normalized by mean and standard deviation; h and w divisible by every cell.
        config: kind and scales.

    Returns:
        One [b, (h / cell) * (w / cell), channels] for each scale, cells in row-major order.
    """
    images = jax.lax.stop_gradient(images.astype(jnp.float32))
    with jax.named_scope(config.kind):
        if config.kind == "pixels":
            return tuple(normalized_pixels(images, cell) for cell in config.cells)
        if config.hog_bias is None:
            return hog_pyramid(images, config.cells, config.bins)
        return tuple(
            hog_pyramid(images, (cell,), config.bins, bias)[0]
            for cell, bias in zip(config.cells, config.hog_bias, strict=True)
        )


def image_gradients(
    images: Float32[Array, "h w *rest"], bias: tuple[float, float] = (0.0, 0.0)
) -> tuple[Float32[Array, "h w *rest"], Float32[Array, "h w *rest"]]:
    """Sobel gradients (gx, gy) with reflected borders; the pixels lie in the first two axes.

    gx correlates with [[1, 0, -1], [2, 0, -2], [1, 0, -1]], gy with its transpose. The neighbors are subtracted
    before they are smoothed: a flat or mirrored neighborhood then gives an exact zero, where a 3x3 convolution leaves
    rounding noise that falls into an arbitrary orientation bin.
    """
    padded = jnp.pad(images, ((1, 1), (1, 1), *((0, 0) for _ in images.shape[2:])), mode="reflect")
    across = padded[:, :-2] - padded[:, 2:]
    down = padded[:-2] - padded[2:]
    gx = across[:-2] + 2 * across[1:-1] + across[2:]
    gy = down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]
    return gx + bias[0], gy + bias[1]


def hog_pyramid(
    images: Float32[Array, "b h w c"], cells: tuple[int, ...], bins: int, bias: tuple[float, float] = (0.0, 0.0)
) -> tuple[Float32[Array, "b _ {images.shape[3]*bins}"], ...]:
    """Histograms of oriented gradients at several scales, from one pass over the pixels.

    Gradients and bins do not depend on the cell, so the histogram of the finest cell is made once and mean-pooled to
    the coarser cells that it divides; only then is every scale L2-normalized per color channel.

    Images and channels lie in the last axis until the end. Neighbors, cells and bins then are slices of leading axes,
    and the last axis fills the lanes of any device: a TPU would pad axes of 18 bins and 3 channels to 8 and 128. Images
    come first in it, so that a batch divided over devices stays divided. The barriers keep XLA from computing a pixel's
    vote once for each bin, and from searching long for ways to do so (docs/benchmarks.md).

    Args:
        images: normalized by mean and standard deviation; h and w divisible by every cell.
        cells: sides of the cells in pixels, in any order.
        bins: orientation bins over half a turn.
        bias: added to (gx, gy); see `TargetConfig.hog_bias`.

    Returns:
        One [b, (h / cell) * (w / cell), c * bins] for each scale, channel-major; 0 for a cell without gradient.
    """
    b, c = images.shape[0], images.shape[3]
    gx, gy = image_gradients(rearrange(images, "b h w c -> h w (b c)"), bias)
    magnitude = jnp.sqrt(jnp.square(gx) + jnp.square(gy))
    orientation = (jnp.floor(jnp.arctan2(gx, gy) / jnp.pi * bins).astype(jnp.int32) % bins).astype(jnp.uint8)
    magnitude, orientation = jax.lax.optimization_barrier((magnitude, orientation))

    histograms: dict[int, jax.Array] = {}
    for cell in sorted(set(cells)):
        finer = max((other for other in histograms if cell % other == 0), default=None)
        if finer is None:
            histogram = _cell_histogram(magnitude, orientation, cell, bins)
        else:
            histogram = _mean_pool(histograms[finer], cell // finer)
        histograms[cell] = jax.lax.optimization_barrier(histogram)
    normalized = (_normalize(histograms[cell]) for cell in cells)
    return tuple(rearrange(cell, "y x o (b c) -> b (y x) (c o)", b=b, c=c) for cell in normalized)


def _cell_histogram(
    magnitude: Float32[Array, "h w n"], orientation: UInt8[Array, "h w n"], cell: int, bins: int
) -> Float32[Array, "h//{cell} w//{cell} {bins} n"]:
    """Mean magnitude per orientation.

    Written as a sum over the pixels of a small cell rather than a reduction or a scatter: XLA then makes one vectorized
    kernel of it, which was about 16 times faster than the reduction on a CPU (`localmim_jax/bench/hog.py`).
    """
    side = max(divisor for divisor in range(1, 9) if cell % divisor == 0)
    h, w, n = magnitude.shape
    split = (h // side, side, w // side, side, 1, n)
    magnitude, orientation = magnitude.reshape(split), orientation.reshape(split)
    bin_index = jnp.arange(bins, dtype=jnp.uint8).reshape(1, 1, bins, 1)
    histogram = jnp.zeros((h // side, w // side, bins, n), jnp.float32)
    for i, j in np.ndindex(side, side):
        vote = orientation[:, i, :, j] == bin_index
        histogram += jnp.where(vote, magnitude[:, i, :, j], jnp.float32(0))
    return _mean_pool(histogram / (side * side), cell // side)


def _mean_pool(histogram: Float32[Array, "y x o n"], factor: int) -> Float32[Array, "_ _ o n"]:
    if factor == 1:
        return histogram
    return reduce(histogram, "(y i) (x j) o n -> y x o n", "mean", i=factor, j=factor)


def _normalize(histogram: Float32[Array, "y x o n"]) -> Float32[Array, "y x o n"]:
    norm = jnp.sqrt(jnp.square(histogram).sum(axis=2, keepdims=True))
    return histogram / jnp.maximum(norm, _EPSILON)


def pixel_patches(images: Float32[Array, "b h w c"], cell: int) -> Float32[Array, "b _ {cell*cell}*c"]:
    """Raw patches, row-major, their values in (row, column, channel) order."""
    return rearrange(images, "b (y i) (x j) c -> b (y x) (i j c)", i=cell, j=cell)


def normalized_pixels(images: Float32[Array, "b h w c"], cell: int) -> Float32[Array, "b _ {cell*cell}*c"]:
    """Patches minus their mean, over their standard deviation, ordered as in `pixel_patches`.

    The variance is the unbiased one (n - 1), as in the release; 1e-6 is added before the root.
    """
    patches = pixel_patches(images, cell)
    mean = patches.mean(axis=-1, keepdims=True)
    variance = patches.var(axis=-1, keepdims=True, ddof=1)
    return (patches - mean) / jnp.sqrt(variance + _VARIANCE_EPSILON)
