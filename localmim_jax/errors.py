"""The errors a user can cause or meet, each with the exit status `main.py` ends with.

0 done, 1 unexpected, 2 bad config or data, 3 diverged, 4 storage, 75 preempted and saved, 130 interrupted and saved.
"""


class UserError(Exception):
    """An error that the user can fix. Its text is one line: what is wrong, where, and what to do."""

    exit_code = 2


class ConfigError(UserError, ValueError):
    """A config value, a flag, or a combination of them that cannot work."""


class InUseError(ConfigError):
    """The run directory belongs to a run that is alive."""


class DataError(UserError):
    """A dataset that is missing, empty, mislabeled or too damaged to use."""


class Diverged(UserError):
    """Training met only non-finite steps for too long."""

    exit_code = 3


class StorageError(UserError):
    """The run directory or a checkpoint could not be written or read."""

    exit_code = 4


class Preempted(UserError):
    """SIGTERM arrived; the state is saved and the same command resumes."""

    exit_code = 75


class Interrupted(UserError):
    """Ctrl-C arrived; the state is saved and the same command resumes."""

    exit_code = 130
