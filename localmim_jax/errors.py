"""Errors that a user can cause or meet, each with the exit status of `main.py`.

0 done, 1 unexpected, 2 bad config or data, 3 diverged, 4 storage, 5 an input worker died, 75 preempted and saved, 130
interrupted and saved.
"""

import re


class UserError(Exception):
    """An error that the user can fix. Its text is one line: what is wrong, where, and what to do."""

    exit_code = 2

    def __str__(self) -> str:
        """One line even where the name of a file has line breaks or moves the cursor."""
        return printable(super().__str__())


class ConfigError(UserError, ValueError):
    """A config value, a flag, or a combination of them that cannot work."""


class InUseError(ConfigError):
    """The run directory belongs to a run that is alive."""


class DataError(UserError):
    """A dataset that is missing, empty, mislabeled or too damaged to use."""


class Diverged(UserError):
    """Too many training steps in a row were not finite."""

    exit_code = 3


class StorageError(UserError):
    """The run directory or a checkpoint could not be written or read."""

    exit_code = 4


class WorkerDied(UserError):
    """A process that makes batches was killed or crashed; what was trained is saved."""

    exit_code = 5


class Preempted(UserError):
    """SIGTERM arrived; the state is saved and the same command resumes."""

    exit_code = 75


class Interrupted(UserError):
    """Ctrl-C arrived; the state is saved and the same command resumes."""

    exit_code = 130


def printable(text: str) -> str:
    """The text in one line: line breaks, control characters and bytes of no encoding are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def out_of_memory_hint(error: Exception) -> str | None:
    """What to try when the accelerator's or the host's memory is full; None for any other error."""
    if isinstance(error, MemoryError):
        return "out of host memory; lower data.num_workers, data.prefetch_batches or batch_size"
    if type(error).__name__ not in ("XlaRuntimeError", "JaxRuntimeError") or "RESOURCE_EXHAUSTED" not in str(error):
        return None
    wanted = re.search(r"allocat\w*\D{0,20}?([\d.]+) ?([KMGT]iB|bytes)", str(error))
    detail = ""
    if wanted:
        size, unit = wanted.groups()
        detail = f" ({float(size) / 2**30:.3g} GiB asked for)" if unit == "bytes" else f" ({size} {unit} asked for)"
    return f"out of device memory{detail}; raise accum_steps, set model.remat=true or lower batch_size"
