"""Cross-entropy of every labeled pixel, from scores on a coarser grid than the labels."""

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, Float32, Integer

from localmim_jax.ops.resize import apply_weights, bilinear_weights

ROWS = 32  # rows of pixels whose scores exist at a time


@jax.named_scope("pixel_cross_entropy")
def pixel_cross_entropy(
    logits: Float[Array, "b h w k"], labels: Integer[Array, "b height width"]
) -> tuple[Float32[Array, ""], Float32[Array, ""]]:
    """Mean cross-entropy over labeled pixels, of scores interpolated bilinearly to the size of the labels.

    Scores at full size are never kept: strips of rows are interpolated one after another, and again in the backward
    pass. OpenMMLab instead divides by the number of all pixels, which gives less weight to images with few labels.

    Args:
        logits: class scores.
        labels: class of each pixel; values outside 0 to k - 1 are unlabeled.

    Returns:
        (loss, fraction of labeled pixels whose class has the highest score); both are 0 if no pixel is labeled.
    """
    _, h, w, classes = logits.shape
    _, height, width = labels.shape
    missing = -height % ROWS
    labels = jnp.pad(labels.astype(jnp.int32), ((0, 0), (0, missing), (0, 0)), constant_values=-1)
    labels = rearrange(labels, "b (strips rows) width -> strips b rows width", rows=ROWS)
    rows = jnp.pad(bilinear_weights(height, h, height, h), ((0, missing), (0, 0)))
    rows = rearrange(rows, "(strips rows) h -> strips rows h", rows=ROWS)
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
