"""Plot how much attention depends on the query, per layer (supplement, A.3).

    localmim analysis attention --runs=runs/global,runs/local --labels=Global,Local --output=figure2

Attention maps are computed on whole images. The class token and padding are removed, and rows are renormalized. Plotted
are the Kullback-Leibler divergence between the attention distributions of different query patches, in nats (mean over
ordered pairs of queries in one window, then over heads and images), the normalized mutual information of query and key,
in 0..1, and the mean distance over which a query attends, in pixels. For a Swin, all three are computed within windows;
a shifted window that the image border divides counts as several windows.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from localmim_jax.analysis import plots, shared
from localmim_jax.analysis.shared import Values
from localmim_jax.params import merge

_TINY = 1e-30  # below it, a probability counts as this much in a logarithm
LABELS = {
    "kl": "KL divergence between queries (nats)",
    "nmi": "normalized mutual information",
    "distance": "mean attention distance (px)",
}


def statistics(weights: jax.Array, group: np.ndarray, coordinates: np.ndarray) -> dict[str, jax.Array]:
    """KL divergence, normalized mutual information and distance of attention maps, see the top of this file.

    Args:
        weights, group, coordinates: see `models.blocks.Measure`.

    Returns:
        "kl", "nmi", "distance" (in tokens), float32 [b] each: means over the heads. 0 where no window has two places.
    """
    same = (group[:, :, None] == group[:, None, :]) & (group >= 0)[:, :, None]  # [windows, n, n]
    p = jnp.where(same[None, :, None], weights.astype(jnp.float32), 0.0)
    p = p / jnp.maximum(p.sum(axis=-1, keepdims=True), _TINY)
    log = jnp.log(jnp.maximum(p, _TINY))
    minus_entropy = (p * log).sum(axis=-1)  # of every query, [b, windows, heads, n]
    exact = jax.lax.Precision.HIGHEST
    cross = jnp.einsum("bghqk,bghrk->bghqr", p, log, precision=exact)
    pairs = same & ~np.eye(group.shape[1], dtype=bool)
    kl = (jnp.where(pairs[None, :, None], minus_entropy[..., None] - cross, 0.0)).sum(axis=(1, 3, 4)) / max(
        pairs.sum(), 1
    )

    offset = coordinates[:, :, None].astype(np.float32) - coordinates[:, None, :]
    far = np.where(same, np.sqrt((offset**2).sum(axis=-1)), 0).astype(np.float32)
    distance = (p * far[None, :, None]).sum(axis=(1, 3, 4)) / max((group >= 0).sum(), 1)
    nmi = _mutual_information(p, minus_entropy, group)
    return {name: value.mean(axis=1) for name, value in {"kl": kl, "nmi": nmi, "distance": distance}.items()}


def _mutual_information(p: jax.Array, minus_entropy: jax.Array, group: np.ndarray) -> jax.Array:
    """I(q; k) / sqrt(H(q) H(k)) with p(q) = 1 / N in each group of N places, averaged over queries: [b, heads]."""
    members = np.stack([group == number for number in range(group.max() + 1)]).astype(np.float32)  # [m, windows, n]
    count = members.sum(axis=-1)[:, None, :, None]  # [m, 1, windows, 1]
    share = jnp.asarray(members[:, None, :, None] / np.maximum(count, 1)[..., None])  # [m, 1, windows, 1, n]
    marginal = jnp.einsum("mxgyq,bghqk->mbghk", share, p, precision=jax.lax.Precision.HIGHEST)
    entropy = -(marginal * jnp.log(jnp.maximum(marginal, _TINY))).sum(axis=-1)  # H(k), [m, b, windows, heads]
    information = entropy + (share * minus_entropy[None]).sum(axis=-1)
    size = np.sqrt(np.log(np.maximum(count, 1))) * jnp.sqrt(jnp.maximum(entropy, 0.0))
    # Where every query attends to one and the same key, nothing is to be known of it.
    nmi = jnp.where(size > 1e-6, information / jnp.maximum(size, 1e-6), 0.0)
    weight = np.where(count > 1, count, 0)
    return (nmi * weight).sum(axis=(0, 2)) / max(weight.sum(), 1)


def measure(config: ConfigDict, checkpoint: Path, images: int, split: str = "") -> Values:
    """ "kl", "nmi" and "distance" (in pixels) of every block, [blocks] each, averaged over images.

    One block's maps exist at a time, of one batch of images.

    Raises:
        ConfigError, DataError, StorageError: model, images or checkpoint cannot be had.
    """
    graphdef, params, model_state = shared.model_of(config, checkpoint)
    height = config.image_size[0]

    def pixels(weights: jax.Array, group: np.ndarray, coordinates: np.ndarray) -> dict[str, jax.Array]:
        found = statistics(weights, group, coordinates)
        return found | {"distance": found["distance"] * (height / (int(coordinates[..., 0].max()) + 1))}

    @jax.jit
    def compute(params, images, valid):
        layers = merge(graphdef, params, model_state).encoder.attention(images, pixels)
        return {name: jnp.stack([(layer[name] * valid).sum() for layer in layers]) for name in LABELS}

    totals: dict[str, np.ndarray] = {name: np.zeros((), np.float64) for name in LABELS}
    count = 0
    for batch, valid in shared.images_of(config, images, split):
        sums = jax.device_get(compute(params, batch, valid.astype(np.float32)))
        totals = {name: totals[name] + sums[name] for name in totals}
        count += int(valid.sum())
    return {name: total / count for name, total in totals.items()}


def define_flags(values: flags.FlagValues) -> None:
    shared.define_flags(values, at="last", output="attention")
    flags.DEFINE_integer("images", 256, "number of images, evenly spaced in the split", flag_values=values)
    flags.DEFINE_string("split", "", "split of the run's dataset; empty: the training split", flag_values=values)


def main(options: flags.FlagValues) -> None:
    series = shared.collect(options, lambda config, place: measure(config, place, options.images, options.split))
    print("\n".join(plots.lines(Path(options.output), series, LABELS, "layer")))
