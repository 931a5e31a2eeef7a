"""SIGTERM and Ctrl-C while something runs, in this process; tests/test_faults.py has the whole program."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from localmim_jax.engine.signals import StopRequest


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_the_first_signal_is_a_request(name, caplog):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopRequest() as stop:
        assert stop.agreed(0) is None
        os.kill(os.getpid(), getattr(signal, name))
        assert stop.agreed(1) == stop.requested == name
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    assert "finishing this step" in caplog.text


def test_later_sigterms_change_nothing():
    with StopRequest() as stop:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert stop.requested == "SIGTERM"


def test_a_sigterm_after_ctrl_c_does_not_make_it_a_preemption():
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested == "SIGINT"


def test_a_second_ctrl_c_leaves_at_once():
    script = (
        "import os, signal, sys; from localmim_jax.engine.signals import StopRequest\n"
        "with StopRequest() as stop:\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT); print(stop.requested, flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGINT); print('not reached', flush=True)\n"
        "    finally:\n"
        "        print('not waited for', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, "SIGINT\n")
    assert "Second Ctrl-C" in done.stderr


def test_at_a_prompt_a_second_ctrl_c_leaves_the_process_alone(monkeypatch):
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert stop.requested == "SIGINT"


def test_outside_the_main_thread_there_are_no_handlers():
    before, inside = signal.getsignal(signal.SIGTERM), []

    def run():
        with StopRequest() as stop:
            inside.append((signal.getsignal(signal.SIGTERM), stop.agreed(0)))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert inside == [(before, None)]
