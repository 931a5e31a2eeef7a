"""`main.py` as a process, to be signalled, killed and starved."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
LONG = "--config.num_steps=1000000"
COMPILED = tempfile.TemporaryDirectory(prefix="compiled-")  # so that the step is compiled once, not by each process


class Program:
    """One start of `main.py` with `tests/tiny_config.py`.

    Args:
        workdir: the run directory. The log goes beside it.
        arguments: more flags.
        environment: more environment variables.
        devices: fake CPU devices.
        file_size_limit: bytes; writing more to one file fails.
        shell: a command line that ends by running "$@", in which case that is the program.
    """

    def __init__(self, workdir, *arguments, environment=None, devices=1, file_size_limit=None, shell=None):
        command = [sys.executable, "main.py", "--config=tests/tiny_config.py", f"--workdir={workdir}", *arguments]
        if shell is not None:
            command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", shell, "sh", *command]
        if file_size_limit is not None:
            command = ["prlimit", f"--fsize={file_size_limit}", *command]
        variables = {
            **os.environ,
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            "JAX_COMPILATION_CACHE_DIR": COMPILED.name,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            **(environment or {}),
        }
        self._log = Path(f"{workdir}.{time.monotonic_ns()}.log")
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with open(self._log, "w") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=log, stderr=subprocess.STDOUT)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait_for(self, text: str) -> "Program":
        """Until the log has this text; an AssertionError with the log if the program ends without it."""
        while text not in self.log:
            assert self.process.poll() is None or text in self.log, f"ended before {text!r}:\n{self.log}"
            time.sleep(0.02)
        return self

    def signal(self, number: int) -> "Program":
        self.process.send_signal(number)
        return self

    def kill(self) -> int:
        return self.signal(signal.SIGKILL).end()

    def end(self) -> int:
        """The exit status, once it has ended; minus the signal for one that was killed."""
        return self.process.wait()

    def last_line(self) -> str:
        """What it said last, apart from the log of warnings."""
        return [line for line in self.log.splitlines() if line.startswith("main.py:")][-1]

    def state_hash(self) -> str:
        return next(line.split()[1] for line in self.log.splitlines() if line.startswith("state_hash "))


def several(workdir, count: int, *arguments: str, environment=None) -> list[Program]:
    """So many processes of one run, on loopback."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    flags = [f"--coordinator_address={address}", f"--num_processes={count}", *arguments]
    return [Program(workdir, *flags, f"--process_id={index}", environment=environment) for index in range(count)]
