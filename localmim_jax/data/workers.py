"""Input worker processes that end with their run, and whose death is told in one line.

A worker ignores Ctrl-C and SIGTERM, which a terminal or a scheduler sends to the whole process group: the run itself
decides when they end. A worker whose run is gone, by SIGKILL too, ends at once: it watches the pipe that only the run
holds open.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker
from typing import Any

import grain

from localmim_jax.errors import WorkerDied

_GONE = "Worker process was terminated unexpectedly"  # grain's words
_NOT_FOR_WORKERS = {signal.SIGINT, signal.SIGTERM}


def in_processes(dataset: grain.IterDataset, count: int, ahead: int) -> Iterator[Any]:
    """The elements of a dataset, made by `count` processes, each `ahead` elements ahead. Closing it ends them.

    Raises:
        WorkerDied: a process was killed or crashed; names it.
    """
    others = set(multiprocessing.active_children())
    workers: list[Any] = []
    iterator = iter(dataset.mp_prefetch(grain.MultiprocessingOptions(count, ahead), worker_init_fn=_prepare))
    try:
        with _quiet_start():
            element = next(iterator, None)
        workers = [child for child in multiprocessing.active_children() if child not in others]
        while element is not None:
            yield element
            element = next(iterator, None)
    except RuntimeError as error:
        if _GONE not in str(error):
            raise
        raise WorkerDied(_describe(workers, count)) from error
    finally:
        iterator.close()


@contextlib.contextmanager
def _quiet_start() -> Iterator[None]:
    """Processes that are started meanwhile begin with Ctrl-C and SIGTERM held back, until `_prepare` ignores them.

    The process that removes shared memory when a run has died does so without a warning.
    """
    option = "ignore:resource_tracker:UserWarning"
    sys.warnoptions.append(option)
    resource_tracker.ensure_running()  # it starts with the first queue otherwise, and lets both signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _NOT_FOR_WORKERS)
    try:
        yield
    finally:
        sys.warnoptions.remove(option)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prepare(index: int, count: int) -> None:
    """Runs in each worker before it reads."""
    for number in _NOT_FOR_WORKERS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _NOT_FOR_WORKERS)
    threading.Thread(target=_end_with_the_run, name="run", daemon=True).start()


def _end_with_the_run() -> None:
    run = multiprocessing.parent_process()
    if run is not None:
        run.join()
        os._exit(1)


def _describe(workers: list[Any], count: int) -> str:
    dead = next((worker for worker in workers if worker.exitcode), None)
    if dead is None:  # so early that it was not listed yet
        who, how = f"one of the {count} input workers", "ended as it began"
    else:
        who = f"input worker {dead.pid} (one of {count})"
        how = f"ended with status {dead.exitcode}"
        if dead.exitcode < 0:
            with contextlib.suppress(ValueError):
                how = f"was killed by {signal.Signals(-dead.exitcode).name}"
    return (
        f"{who} {how}; often memory ran out: the same command resumes, with fewer data.num_workers if it happens again"
    )
