"""Exact top-1 and top-5 accuracy over every example, whatever the batch, device and host count."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from localmim_jax.engine.task import Batch

TOP = (1, 5)


def ranks_and_losses(logits: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
    """What `Accuracy` needs of a batch, small enough to bring to the host.

    Args:
        logits: float [b, c].
        labels: int32 [b] in [0, c).

    Returns:
        "rank", int32 [b]: how many classes are ahead of the label; of equal scores the lower class is ahead, as in
        top-k, and a NaN puts the label behind everything. "loss", float32 [b]: cross entropy.
    """
    logits = logits.astype(jnp.float32)
    own = jnp.take_along_axis(logits, labels[:, None], axis=1)
    classes = jnp.arange(logits.shape[1])[None]
    ahead = ~(logits <= own) | ((logits == own) & (classes < labels[:, None]))
    return {"rank": ahead.sum(axis=1, dtype=jnp.int32), "loss": jax.nn.logsumexp(logits, axis=1) - own[:, 0]}


class Accuracy:
    """Counts examples whose label is among the best 1 and 5 classes; a `Metric` over `ranks_and_losses`."""

    def __init__(self, num_classes: int):
        self.top = [k for k in TOP if k < num_classes]
        self.hits = dict.fromkeys(self.top, 0)
        self.loss, self.count = 0.0, 0

    def update(self, outputs: Mapping[str, np.ndarray], batch: Batch) -> None:
        for k in self.top:
            self.hits[k] += int((outputs["rank"] < k).sum())
        self.loss += float(outputs["loss"].sum(dtype=np.float64))
        self.count += len(outputs["rank"])

    def compute(self) -> dict[str, float]:
        """{"top1", "top5" (with more than five classes): shares in [0, 1], "loss": mean, "examples": count}."""
        shares = {f"top{k}": hits / self.count for k, hits in self.hits.items()}
        return shares | {"loss": self.loss / self.count, "examples": float(self.count)}
