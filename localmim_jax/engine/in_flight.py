"""Steps under way on the devices, so that the host prepares the next one while they run."""

import collections
import dataclasses
from collections.abc import Callable

import jax

from localmim_jax.engine.prefetch import PlacedBatch

RUN_AHEAD = 2  # steps that may be under way on the devices while the host prepares the next one


class StepsInFlight:
    """Steps whose metrics the host has not read yet. Reading waits for the step, so only old ones are read.

    Args:
        run_ahead: how many steps may stay unread.
        on_finished: called for each step in order, with its batch (without arrays) and its metrics.
    """

    def __init__(self, run_ahead: int, on_finished: Callable[[PlacedBatch, dict[str, float]], None]):
        self._run_ahead, self._on_finished = run_ahead, on_finished
        self._steps: collections.deque[tuple[PlacedBatch, dict[str, jax.Array]]] = collections.deque()

    def add(self, batch: PlacedBatch, metrics: dict[str, jax.Array]) -> None:
        """A step that was just started."""
        for value in metrics.values():
            value.copy_to_host_async()
        self._steps.append((dataclasses.replace(batch, arrays={}), metrics))
        while len(self._steps) > self._run_ahead:
            self._read()

    def wait(self) -> None:
        """Returns when every step is finished."""
        while self._steps:
            self._read()

    def _read(self) -> None:
        batch, metrics = self._steps.popleft()
        self._on_finished(batch, {name: float(value) for name, value in metrics.items()})


def run_ahead_on(devices: list[jax.Device]) -> int:
    """How many steps may be under way on these devices at once."""
    # Collectives of several steps at once can deadlock on the CPU backend of jax 0.10.
    several_cpus = devices[0].platform == "cpu" and len(devices) > 1
    return 0 if several_cpus else RUN_AHEAD
