"""Prefetching: the next batches are fetched and placed on the devices while the current step runs."""

import collections
import concurrent.futures
import dataclasses
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import numpy as np
from jax.sharding import Mesh

from localmim_jax.engine.mesh import place_batch
from localmim_jax.engine.task import Batch
from localmim_jax.errors import DataError

AHEAD = 2  # batches placed, or being placed, besides the one in use
POLL = 0.5  # seconds between two looks at whether a signal has come, while a batch is waited for

_PATIENCE = 5.0  # seconds that a thread has to end
_THREAD = "prefetch"


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
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=_THREAD)
        self._queue: collections.deque[Future[PlacedBatch]] = collections.deque()
        for _ in range(AHEAD):
            self._ask()

    def __enter__(self) -> "DevicePrefetch":
        return self

    def __exit__(self, *_: object) -> None:
        """Waits for the batch that is being read, but not for ever: a read from a dead disk cannot be interrupted."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        concurrent.futures.wait([future for future in self._queue if not future.cancelled()], _PATIENCE)

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

    def ready(self, seconds: float = POLL) -> bool:
        """Waits up to so many seconds; whether `next` would return or raise at once."""
        start = time.perf_counter()
        if self._queue:
            concurrent.futures.wait([self._queue[0]], seconds)
        self.waited += time.perf_counter() - start
        return not self._queue or self._queue[0].done()

    def _ask(self) -> None:
        step = next(self._steps, None)
        if step is not None:
            self._queue.append(self._thread.submit(self._fetch, step))

    def _fetch(self, step: int) -> PlacedBatch:
        batch = next(self._source, None)
        if batch is None:
            raise DataError(f"the training data ended before step {step}; it must have a batch for every step")
        return PlacedBatch(step, place_batch(self._mesh, batch), np.asarray(batch["id"]))


def interruptible(source: Iterator[Batch], stop: Callable[[], bool]) -> Iterator[Batch | None]:
    """The batches of a source, read by a thread. None comes last where `stop` is true while a batch is waited for."""
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=_THREAD)
    try:
        while True:
            batch = thread.submit(next, source, None)
            while not concurrent.futures.wait([batch], POLL).done:
                if stop():
                    yield None
                    return
            found = batch.result()
            if found is None:
                return
            yield found
    finally:
        thread.shutdown(wait=False, cancel_futures=True)


def hanging() -> bool:
    """Whether a thread that reads batches does not end, so that the process would not end either."""
    deadline = time.monotonic() + _PATIENCE
    threads = [thread for thread in threading.enumerate() if thread.name.startswith(_THREAD)]
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return any(thread.is_alive() for thread in threads)
