"""A trace of a few steps for TensorBoard's profiler or Perfetto."""

from collections.abc import Callable
from pathlib import Path

import jax

from localmim_jax.engine.progress import log

PROFILED_STEPS = 5


class Profiler:
    """Profiles `PROFILED_STEPS` steps, or fewer at the end of a run.

    Args:
        directory: where the trace is written.
        first_step: the step before which the trace starts; 0 for no trace.
    """

    def __init__(self, directory: Path, first_step: int):
        self._directory, self._first_step = str(directory), first_step
        self._running = False

    def before(self, step: int) -> None:
        """Call before each step starts."""
        if self._first_step and step == self._first_step:
            jax.profiler.start_trace(self._directory)
            self._running = True

    def after(self, step: int, wait: Callable[[], None], last: bool) -> None:
        """Call after each step was started.

        Args:
            step: the number of steps started so far.
            wait: returns when all of them are finished.
            last: whether no step follows.
        """
        if self._running and (last or step == self._first_step + PROFILED_STEPS):
            wait()
            jax.profiler.stop_trace()
            self._running = False
            log("profile of steps %d to %d in %s", self._first_step + 1, step, self._directory)
