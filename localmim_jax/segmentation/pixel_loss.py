"""Cross-entropy of every labeled pixel, of scores on a coarser grid than the labels'."""

import jax
import jax.numpy as jnp

from localmim_jax.ops.resize import apply_weights, bilinear_weights

ROWS = 32  # of pixels whose scores exist at a time


def pixel_cross_entropy(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mean cross-entropy over labeled pixels, of scores interpolated to the labels' size (bilinearly).

    Scores at full size are never kept: strips of rows are interpolated one after the other, and again in the backward
    pass. OpenMMLab divides by the number of all pixels instead, so that an image with few labels counts for less.

    Args:
        logits: [b, h, w, c].
        labels: integers [b, H, W]; those outside 0 to c - 1 are not labeled.

    Returns:
        (loss, share of labeled pixels whose class has the highest score), float32 scalars; both 0 without any label.
    """
    _, h, w, classes = logits.shape
    b, height, width = labels.shape
    strips = -(-height // ROWS)
    missing = strips * ROWS - height
    labels = jnp.pad(labels.astype(jnp.int32), ((0, 0), (0, missing), (0, 0)), constant_values=-1)
    labels = labels.reshape(b, strips, ROWS, width).swapaxes(0, 1)
    rows = jnp.pad(bilinear_weights(height, h, height, h), ((0, missing), (0, 0))).reshape(strips, ROWS, h)
    columns = bilinear_weights(width, w, width, w)
    logits = logits.astype(jnp.float32)

    @jax.checkpoint
    def strip(logits: jax.Array, rows: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        scores = apply_weights(logits, rows, columns)
        labeled = (labels >= 0) & (labels < classes)
        safe = jnp.where(labeled, labels, 0)
        own = jnp.take_along_axis(scores, safe[..., None], axis=-1)[..., 0]
        losses = jnp.where(labeled, jax.nn.logsumexp(scores, axis=-1) - own, 0.0)
        hits = labeled & (jnp.argmax(scores, axis=-1) == safe)
        return losses.sum(), hits.sum(dtype=jnp.float32), labeled.sum(dtype=jnp.float32)

    def add(sums: list[jax.Array], inputs: tuple[jax.Array, jax.Array]) -> tuple[list[jax.Array], None]:
        return [total + new for total, new in zip(sums, strip(logits, *inputs), strict=True)], None

    (loss, hits, count), _ = jax.lax.scan(add, [jnp.zeros((), jnp.float32)] * 3, (rows, labels))
    count = jnp.maximum(count, 1.0)
    return loss / count, hits / count
