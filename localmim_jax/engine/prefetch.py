"""Prefetching: the next batches are fetched and placed on the devices while the current step runs."""

import collections
import dataclasses
import time
from collections.abc import Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import numpy as np
from jax.sharding import Mesh

from localmim_jax.engine.mesh import place_batch
from localmim_jax.engine.task import Batch
from localmim_jax.errors import DataError

AHEAD = 2  # batches placed, or being placed, besides the one in use


@dataclasses.dataclass(frozen=True)
class PlacedBatch:
    """A batch on the devices, the ids of this host's examples, and the step that consumes it."""

    step: int
    arrays: dict[str, jax.Array]
    ids: np.ndarray

    @property
    def shapes(self) -> Hashable:
        """The name, shape and dtype of every array. A step is compiled once for each."""
        return tuple((name, array.shape, str(array.dtype)) for name, array in sorted(self.arrays.items()))


class DevicePrefetch:
    """Iterates over the placed batches of steps `first_step` to `num_steps` - 1. A context manager.

    One thread reads the source in order. `next` raises the errors of the source.

    Attributes:
        waited: seconds that `next` has waited so far.
    """

    def __init__(self, mesh: Mesh, source: Iterator[Batch], first_step: int, num_steps: int):
        self.waited = 0.0
        self._mesh = mesh
        self._source = source
        self._steps = iter(range(first_step, num_steps))
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
        self._queue: collections.deque[Future[PlacedBatch]] = collections.deque()
        for _ in range(AHEAD):
            self._ask()

    def __enter__(self) -> "DevicePrefetch":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def __iter__(self) -> Iterator[PlacedBatch]:
        return self

    def __next__(self) -> PlacedBatch:
        """Raises DataError if the source ends before the run does."""
        self._ask()
        if not self._queue:
            raise StopIteration
        start = time.perf_counter()
        batch = self._queue.popleft().result()
        self.waited += time.perf_counter() - start
        return batch

    def _ask(self) -> None:
        step = next(self._steps, None)
        if step is not None:
            self._queue.append(self._thread.submit(self._fetch, step))

    def _fetch(self, step: int) -> PlacedBatch:
        batch = next(self._source, None)
        if batch is None:
            raise DataError(f"the training data ended before step {step}; it must have a batch for every step")
        return PlacedBatch(step, place_batch(self._mesh, batch), np.asarray(batch["id"]))
