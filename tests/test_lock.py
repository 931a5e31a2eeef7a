"""One writer per run directory. A holder that dies is a real process, killed."""

import errno
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from localmim_jax.engine.checkpoints import lock
from localmim_jax.engine.checkpoints.lock import RunLock
from localmim_jax.errors import ConfigError, StorageError

HOLD = "import sys, time; from localmim_jax.engine.checkpoints.lock import RunLock; RunLock(sys.argv[1]).__enter__(); "
HOLD += "print('held', flush=True); time.sleep(600)"


def sign(workdir, **signature) -> None:
    (workdir / "run.lock").write_text(json.dumps({"start": "yesterday", **signature}))


def test_a_second_run_is_refused_by_name_and_a_later_one_is_not(tmp_path):
    with RunLock(tmp_path):
        who = f"{tmp_path} is in use by process {os.getpid()} on {socket.gethostname()} since 20"
        with pytest.raises(ConfigError, match=who) as caught, RunLock(tmp_path):
            pass
        assert caught.value.exit_code == 2
    assert not (tmp_path / "run.lock").exists()
    with RunLock(tmp_path):
        pass


def test_released_on_an_exception(tmp_path):
    with pytest.raises(ZeroDivisionError), RunLock(tmp_path):
        raise ZeroDivisionError
    assert not (tmp_path / "run.lock").exists()


def test_a_killed_holder_blocks_while_it_lives_only(tmp_path, caplog):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=f"in use by process {holder.pid} "), RunLock(tmp_path):
            pass
        holder.send_signal(signal.SIGSTOP)  # a stopped run may go on: it still holds its lock
        with pytest.raises(ConfigError, match=f"in use by process {holder.pid} "), RunLock(tmp_path):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with caplog.at_level("WARNING", "absl"), RunLock(tmp_path):
        assert json.loads((tmp_path / "run.lock").read_text())["pid"] == os.getpid()
    assert f"left by a run that died (process {holder.pid} on" in caplog.text


def test_of_many_that_find_a_stale_lock_one_wins(tmp_path):
    for _ in range(20):
        sign(tmp_path, host=socket.gethostname(), pid=2**30, process_start="1")
        start, taken, over = threading.Barrier(8), [], threading.Barrier(8)

        def contend(start=start, taken=taken, over=over):
            start.wait()
            try:
                with RunLock(tmp_path):
                    taken.append(1)
                    over.wait()
            except ConfigError:
                over.wait()

        with ThreadPoolExecutor(8) as pool:
            for contender in [pool.submit(contend) for _ in range(8)]:
                contender.result()
        assert taken == [1]


def test_a_file_that_its_owner_removes_meanwhile_is_not_a_lock(tmp_path, monkeypatch):
    really_lock, calls = fcntl.flock, []

    def lock_after_the_owner_left(descriptor, operation):
        calls.append(operation)
        if len(calls) == 1:
            (tmp_path / "run.lock").unlink()
        really_lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", lock_after_the_owner_left)
    with RunLock(tmp_path), pytest.raises(ConfigError, match="is in use by"), RunLock(tmp_path):
        pass


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_an_unreadable_signature_is_no_owner(tmp_path, content):
    (tmp_path / "run.lock").write_text(content)
    with RunLock(tmp_path):
        pass


def test_a_run_on_another_host_is_believed_while_it_shows_signs_of_life(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(lock, "DEAD_AFTER_SECONDS", 1.0)
    sign(tmp_path, host="elsewhere", pid=7)
    stop = threading.Event()

    def beat():
        while not stop.wait(0.1):
            os.utime(tmp_path / "run.lock")

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        with pytest.raises(ConfigError, match="in use by process 7 on elsewhere since yesterday"), RunLock(tmp_path):
            pass
    finally:
        stop.set()
        beating.join()
    with caplog.at_level("WARNING", "absl"), RunLock(tmp_path):
        pass
    assert "left by a run that died (process 7 on elsewhere since yesterday)" in caplog.text


def test_the_holder_shows_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.02)
    with RunLock(tmp_path):
        path = tmp_path / "run.lock"
        os.utime(path, (0, 0))
        while path.stat().st_mtime == 0:
            time.sleep(0.01)


@pytest.fixture
def no_flock(monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.usefixtures("no_flock")
def test_without_flock_the_signature_decides(tmp_path, caplog):
    with RunLock(tmp_path), pytest.raises(ConfigError, match=f"in use by process {os.getpid()}"), RunLock(tmp_path):
        pass
    sign(tmp_path, host=socket.gethostname(), pid=os.getpid(), process_start="1")  # a reused process id
    with RunLock(tmp_path):
        pass
    sign(tmp_path, host=socket.gethostname(), pid=2**30, process_start="1")
    with RunLock(tmp_path):
        pass
    assert "has no flock" in caplog.text


def test_a_directory_that_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"run\.lock cannot be written: Not a directory"), RunLock(tmp_path / "file"):
        pass


def test_releasing_in_a_vanished_directory_is_no_error(tmp_path):
    workdir = tmp_path / "run"
    workdir.mkdir()
    with RunLock(workdir):
        shutil.rmtree(workdir)
