"""Properties of drawn examples: a few, always the same, in `make test`; new ones for a given time in `make fuzz`.

FUZZ_SECONDS is the time of the whole run, which the properties share. Every example has `EXAMPLE_SECONDS`: one that
takes longer hangs, and fails.
"""

import collections
import contextlib
import functools
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import HealthCheck

from localmim_jax.errors import UserError

SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
EXAMPLE_SECONDS = 60.0  # a busy machine included
_ROUND = 200  # examples

tried: collections.Counter[str] = collections.Counter()  # examples by property
refused: collections.Counter[str] = collections.Counter()  # of them ended with one line
properties: list[str] = []  # those of this run
_running: list[str] = [""]


def fuzz(examples: int, **strategies: Any) -> Callable[..., Any]:
    """A test of `body(folder, **drawn)`, where the folder is the property's own and keeps its files between examples.

    Args:
        examples: number of examples in `make test`.
        strategies: of hypothesis.
    """

    def decorate(body: Callable[..., None]) -> Callable[[Path], None]:
        name = f"{body.__module__.rpartition('.')[2]}::{body.__name__}"

        def test(tmp_path: Path) -> None:
            end = time.monotonic() + SECONDS / max(1, len(properties))
            failed = False

            def once(**drawn: Any) -> None:
                nonlocal failed
                if SECONDS and time.monotonic() > end and not failed:  # a failure is still made smaller
                    return
                tried[name] += 1
                _running[-1] = name
                try:
                    with limited(EXAMPLE_SECONDS):
                        body(tmp_path, **drawn)
                except BaseException:
                    failed = True
                    raise

            settings = functools.partial(
                hypothesis.settings, database=None, deadline=None, suppress_health_check=list(HealthCheck)
            )
            given = hypothesis.given(**strategies)
            if not SECONDS:
                settings(max_examples=examples, derandomize=True)(given(once))()
            while time.monotonic() < end:
                new = hypothesis.seed(secrets.randbits(64))
                new(settings(max_examples=_ROUND, print_blob=True)(given(once)))()

        test.__name__, test.__doc__, test.__module__ = body.__name__, body.__doc__, body.__module__
        test.fuzzed = name  # type: ignore[attr-defined]
        return test

    return decorate


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in the block after so many seconds."""

    def give_up(number: int, frame: Any) -> None:
        raise TimeoutError(f"no end after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def result_or_one_line(call: Callable[[], Any]) -> Any:
    """What the call returns, or None where it ends with one line for the user. Any other error passes."""
    try:
        return call()
    except UserError as error:
        text = str(error)
    refused[_running[-1]] += 1
    assert len(text.splitlines()) == 1, text
    assert len(text) < 2000
    return None
