"""One writer per run directory: `run.lock`, held with flock and signed with host, process and start time.

The kernel releases flock when its owner dies, so a crash on the same host never blocks the next start. Where flock does
not reach (another host on a file system that keeps it local, or one without flock), the owner's signature decides. The
owner touches the file every few seconds. A file that was not touched for a minute belongs to a dead run.
"""

import errno
import fcntl
import json
import os
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import jax
from absl import logging

from localmim_jax.errors import InUseError, StorageError
from localmim_jax.files import parse_json

NAME = "run.lock"
BEAT_SECONDS = 10.0
DEAD_AFTER_SECONDS = 60.0

_NO_FLOCK = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL}


class RunLock:
    """Context manager that holds the lock. Only the first of several processes takes it.

    Raises:
        InUseError: (exit status 2) another run holds the directory; names its host, process and start.
        StorageError: the lock file cannot be written.
    """

    def __init__(self, workdir: Path):
        self._path = Path(workdir) / NAME
        self._descriptor: int | None = None
        self._beat = threading.Thread()
        self._released = threading.Event()

    def __enter__(self) -> "RunLock":
        if jax.process_index() == 0:
            try:
                self._descriptor = self._acquire()
            except OSError as error:
                raise StorageError(f"{self._path} cannot be written: {error.strerror}") from error
            self._released.clear()
            self._beat = threading.Thread(
                target=self._keep_alive, args=(self._descriptor,), name="run.lock", daemon=True
            )
            self._beat.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor is None:
            return
        self._released.set()
        self._beat.join()
        if self._is_current(self._descriptor):
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = None

    def _acquire(self) -> int:
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                flocked = self._flock(descriptor)
                if self._is_current(descriptor):
                    self._take_over(descriptor, flocked)
                    _sign(descriptor)
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # its owner removed it while we opened it: try the new one

    def _flock(self, descriptor: int) -> bool:
        """Whether flock was taken; False where the file system has none."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._refusal(_signature(descriptor)) from None
        except OSError as error:
            if error.errno not in _NO_FLOCK:
                raise
            logging.warning("%s: this file system has no flock; relying on the signature in the file", self._path)
            return False
        return True

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self._path))
        except FileNotFoundError:
            return False

    def _take_over(self, descriptor: int, flocked: bool) -> None:
        """Returns if no living run has signed the file; raises InUseError otherwise."""
        holder = _signature(descriptor)
        if not holder:
            return
        if holder.get("host") == socket.gethostname():
            alive = _started(holder.get("pid"))
            if not flocked and alive and alive == holder.get("process_start"):
                raise self._refusal(holder)
        else:
            self._watch(descriptor, holder)
        logging.warning("%s was left by a run that died (%s); taking it over", self._path, _describe(holder))

    def _watch(self, descriptor: int, holder: dict[str, Any]) -> None:
        """Waits until the owner on another host touches the file (then raises) or has been silent for long enough."""
        last = os.fstat(descriptor).st_mtime
        while (silent := _now_on(self._path.parent) - last) < DEAD_AFTER_SECONDS:
            logging.warning("%s is signed by %s; waiting for a sign of life", self._path, _describe(holder))
            time.sleep(min(BEAT_SECONDS / 2, max(0.0, DEAD_AFTER_SECONDS - silent) + 0.01))
            if os.stat(self._path).st_mtime != last:
                raise self._refusal(holder)

    def _refusal(self, holder: dict[str, Any]) -> InUseError:
        return InUseError(
            f"{self._path.parent} is in use by {_describe(holder)}; stop that run, or give this one another workdir"
        )

    def _keep_alive(self, descriptor: int) -> None:
        while not self._released.wait(BEAT_SECONDS):
            try:
                os.utime(descriptor)
            except OSError as error:
                logging.warning("%s cannot be touched: %s", self._path, error)


def holder(workdir: Path) -> str | None:
    """The run that uses a directory, by the signature in its lock; None if there is none. Takes no lock itself."""
    try:
        descriptor = os.open(Path(workdir) / NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        signature = _signature(descriptor)
        if signature.get("host") == socket.gethostname():
            alive = _started(signature.get("pid"))
            return _describe(signature) if alive and alive == signature.get("process_start") else None
        silent = time.time() - os.fstat(descriptor).st_mtime
        return _describe(signature) if signature and silent < DEAD_AFTER_SECONDS else None
    finally:
        os.close(descriptor)


def _sign(descriptor: int) -> None:
    pid = os.getpid()
    signature = {
        "host": socket.gethostname(),
        "pid": pid,
        "process_start": _started(pid),
        "start": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(signature).encode(), 0)
    os.fsync(descriptor)


def _signature(descriptor: int) -> dict[str, Any]:
    """The signature of the owner; {} if it has not signed yet, died while writing, or is not ours."""
    try:
        signature = parse_json(os.pread(descriptor, 4096, 0), dict)
    except ValueError:
        return {}
    return signature if isinstance(signature.get("host"), str) else {}


def _describe(holder: dict[str, Any]) -> str:
    if not holder:
        return "another run that is just starting"
    return f"process {holder.get('pid')} on {holder.get('host')} since {holder.get('start')}"


def _started(pid: Any) -> str | None:
    """Start time of a process in the kernel's clock ticks, which tells a reused pid from its former owner.

    "alive" where the system does not provide it; None if there is no such process, or this is no process id.
    """
    if type(pid) is not int or not 0 < pid < 2**31:
        return None
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "alive"


def _now_on(directory: Path) -> float:
    """The current time by the clock of the directory's file system, which may differ from ours."""
    with tempfile.TemporaryFile(dir=directory) as handle:
        return os.fstat(handle.fileno()).st_mtime
