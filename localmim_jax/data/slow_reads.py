"""Names the files whose reading does not end, as on a network mount whose server is gone.

Such a read cannot be interrupted. It holds up its batch and then the run, which without this would wait in silence.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterator

from absl import logging

from localmim_jax.errors import printable

SLOW = 20.0  # seconds after which a read is reported
_PERIOD = 1.0

_reading: dict[int, tuple[str, float]] = {}  # by thread: the file, and when its reading began
_lock = threading.Lock()
_watcher: tuple[int, threading.Thread] | None = None  # with the process it belongs to: a forked one has no thread


@contextlib.contextmanager
def watched(path: str | os.PathLike[str]) -> Iterator[None]:
    """Around the reading of a file: a warning with its name after `SLOW` seconds, once."""
    _start_watcher()
    thread = threading.get_ident()
    _reading[thread] = os.fspath(path), time.monotonic()
    try:
        yield
    finally:
        _reading.pop(thread, None)


def _start_watcher() -> None:
    global _watcher
    if _watcher is not None and _watcher[0] == os.getpid():
        return
    with _lock:
        if _watcher is None or _watcher[0] != os.getpid():
            _reading.clear()
            thread = threading.Thread(target=_watch, name="slow reads", daemon=True)
            _watcher = os.getpid(), thread
            thread.start()


def _watch() -> None:
    reported: set[tuple[str, float]] = set()
    while True:
        time.sleep(_PERIOD)
        now = time.monotonic()
        current = set(_reading.copy().values())
        reported &= current
        for path, start in sorted(current - reported):
            if now - start >= SLOW:
                reported.add((path, start))
                logging.warning(
                    "reading %s has taken %.0f s and has not ended: is its disk or network mount alive?",
                    printable(path),
                    now - start,
                )
