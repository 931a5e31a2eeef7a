"""SIGTERM and Ctrl-C as requests to finish the step, save and exit.

With one process, Python's signal handlers are used. With several, jax's preemption service handles SIGTERM and makes
all processes agree on one step. A Ctrl-C is forwarded to the same service.
"""

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

import jax
from absl import logging
from jax.experimental import multihost_utils

from localmim_jax.errors import Interrupted


class StopRequest:
    """Context manager around a training loop; `agreed(step)` says when to save and exit.

    The first SIGTERM or Ctrl-C is recorded. Later SIGTERMs change nothing. A second Ctrl-C exits at once with status
    130, without waiting for the checkpoint in flight; published checkpoints stay whole. In a notebook or an interactive
    session it raises KeyboardInterrupt instead. Outside the main thread, signals cannot be caught, and only `agreed` of
    several processes works.

    Attributes:
        requested: the first signal that this process received, "SIGTERM" or "SIGINT"; None before it.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        self._several = False
        self._interrupts = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        self._several = jax.process_count() > 1
        if threading.current_thread() is threading.main_thread():
            self._previous[signal.SIGINT] = signal.signal(signal.SIGINT, self._on_interrupt)
            if not self._several:
                self._previous[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._on_terminate)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def agreed(self, step: int) -> str | None:
        """The signal for which every process exits after `step`, "SIGTERM" or "SIGINT"; None to continue.

        With several processes each must call this at every step, all from the same first one. Then all get the signal
        at the same step, a few steps after it was sent. Only processes that received the Ctrl-C get "SIGINT".
        """
        if not self._several:
            return self.requested
        if not multihost_utils.reached_preemption_sync_point(step):
            return None
        return self.requested or "SIGTERM"

    def _on_terminate(self, number: int, frame: FrameType | None) -> None:
        if self.requested is None:
            self.requested = "SIGTERM"
            logging.warning("SIGTERM: finishing this step, then saving and exiting")

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        self._interrupts += 1
        if self._interrupts > 1:
            if hasattr(sys, "ps1"):
                raise KeyboardInterrupt
            os.write(2, b"Second Ctrl-C: leaving at once; published checkpoints are whole\n")
            os._exit(Interrupted.exit_code)
        if self.requested is None:
            self.requested = "SIGINT"
            logging.warning("Ctrl-C: finishing this step, then saving and exiting; press Ctrl-C again to exit at once")
            if self._several:
                os.kill(os.getpid(), signal.SIGTERM)
