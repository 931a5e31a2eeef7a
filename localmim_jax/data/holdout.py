"""A validation part of a folder that has none: chosen by name, so that it is the same everywhere and stays the same."""

import hashlib
from collections.abc import Sequence

import numpy as np

from localmim_jax.data.names import composed


def held_out(names: Sequence[str], labels: np.ndarray, fraction: float) -> np.ndarray:
    """Which examples are held out of training: bool [n].

    A hash of its name, uniform in 0..1, holds an example out where it is below `fraction`. So neither the machine nor
    the other examples matter: after adding some, the old ones stay where they were. Each class keeps one example on
    either side if it has two: where the hashes would leave a side empty, the smallest or the largest one goes there.

    Args:
        names: relative to the dataset's root; both forms of Unicode are the same name.
        labels: int [n], the class of each.
        fraction: above 0 and below 1, expected of each class; a class of n examples deviates by about
            sqrt(n * fraction * (1 - fraction)).
    """
    values = np.array([uniform(name) for name in names])
    chosen = values < fraction
    order = np.lexsort((values, labels))
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    ends = np.append(starts[1:], len(order)) - 1
    several = ends > starts
    chosen[order[starts[several]]] = True
    chosen[order[ends[several]]] = False
    chosen[order[starts[~several]]] = False  # an only example is trained on
    return chosen


def uniform(name: str) -> float:
    """A number in 0..1 that only the name decides, spread evenly over names."""
    digest = hashlib.blake2b(composed(name).encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
