"""The records of a run: `config.json`, the config it was started with, and `env.json`, with an entry for each start.

An entry has versions, devices, commit and command. A resumed run must have the config it was started with.
"""

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import logging

from localmim_jax.errors import ConfigError, StorageError
from localmim_jax.files import read_json, write_json
from localmim_jax.params import flatten

# Keys whose value does not change what is learned. A name covers itself and all keys below it; "*" ends a prefix.
MAY_CHANGE = (
    "log",
    "eval",
    "mesh",
    "checkpoint.every_*",
    "checkpoint.keep_*",
    "data.num_threads",
    "data.num_workers",
    "data.prefetch_batches",
    "data.data_dir",
    "data.allow_change",
)

# Keys of which null means now what this value, in JSON, meant when old runs were started.
_FORMER_DEFAULTS = {"checkpoint.standard_merging": "false"}

_LONGEST = 80  # characters of a key or a value in a message
_MOST = 12  # changes that a message lists

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "grain", "tensorflow-datasets", "pillow")


def open_workdir(workdir: str | os.PathLike[str]) -> Path:
    """The absolute run directory, created if it is missing. Writing to it is tried.

    Raises:
        ConfigError: it is a URL.
        StorageError: it cannot be created or written; names the path and the reason.
    """
    if "://" in os.fspath(workdir):
        raise ConfigError(f"workdir {workdir} is a URL; give a local or mounted directory")
    path = Path(workdir).expanduser().absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as handle:
            handle.write(b"x")
    except OSError as error:
        reason = "it is a file" if path.is_file() else error.strerror
        raise StorageError(f"workdir {path} cannot be written: {reason}; give another --workdir") from error
    return path


def record_run(workdir: Path, config: Mapping[str, Any], resuming: bool) -> None:
    """Compares the config with the recorded one, then writes both records. Every process compares; the first writes.

    Args:
        workdir: as `open_workdir` gave it.
        config: the resolved config as nested mappings of JSON values and tuples.
        resuming: whether the directory has a checkpoint. Without one, a changed config replaces the old one.

    Raises:
        ConfigError: a resumed run's config differs outside `MAY_CHANGE`; lists each key: old -> new.
        StorageError: a record cannot be read or written.
    """
    config = _as_json(config)
    path = Path(workdir) / "config.json"
    if resuming and path.exists():
        old = _recorded(path)
        task = config.get("task")
        if old.get("task", task) != task:  # every key of either task would be listed
            raise ConfigError(
                f"{workdir} is a run of the task {old['task']}, and this config's is {task}: give another --workdir, "
                "and checkpoint.init_from to start from these parameters"
            )
        changes = changed(old, config)
        if changes:
            more = "" if len(changes) <= _MOST else f"; and {len(changes) - _MOST} more"
            raise ConfigError(
                f"{workdir} was started with another config ({'; '.join(changes[:_MOST])}{more}); resume with the old "
                "values; or give another --workdir, and checkpoint.init_from to start from these parameters; or edit "
                f"{path} if the change is meant"
            )
    if jax.process_index() != 0:
        return
    write_json(path, config)
    environments = Path(workdir) / "env.json"
    write_json(environments, [*_starts(environments), environment()])


def changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Each key that differs but must not, as "key: old -> new". Numbers compare as in JSON: 1 equals 1.0, not true.

    A key that is absent equals one that is off (null, false, zero or only zeros), so that runs can resume after an
    update that added a key.
    """
    before, after = _flatten(_as_json(old)), _flatten(_as_json(new))

    def differs(key: str) -> bool:
        if key in before and key in after:
            return before[key] != after[key] and (before[key], after[key]) != (_FORMER_DEFAULTS.get(key), "null")
        return not _is_off(json.loads(before.get(key) or after[key]))

    return [
        f"{_short(key)}: {_short(before.get(key, 'absent'))} -> {_short(after.get(key, 'absent'))}"
        for key in sorted(before.keys() | after.keys())
        if differs(key) and not any(_covers(rule, key) for rule in MAY_CHANGE)
    ]


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _is_off(value: Any) -> bool:
    return not any(value) if isinstance(value, list) else not value


def environment() -> dict[str, Any]:
    """The entry of this start: time, command, host, devices, versions, commit."""
    devices = jax.devices()
    return {
        "time": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": sys.argv,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "devices": {"count": len(devices), "platform": devices[0].platform, "kind": devices[0].device_kind},
        "processes": jax.process_count(),
        "commit": _commit(),
    }


def _recorded(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise StorageError(
            f"{path} is damaged ({error}): repair it, or remove it to accept this start's config as the run's"
        ) from error


def _starts(path: Path) -> list[Any]:
    """The entries of the starts before. A damaged file, which nothing else reads, is set aside with a warning."""
    try:
        return read_json(path, list)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        aside = path.with_name(path.name + ".damaged")
        logging.warning(
            "%s is damaged (%s); a new file is started, and the old one is kept as %s", path, error, aside.name
        )
        with contextlib.suppress(OSError):
            os.replace(path, aside)
        return []


def _as_json(config: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(config))


def _flatten(config: Mapping[str, Any]) -> dict[str, str]:
    """{"a.b": the value's JSON}, with integral floats written as integers."""
    return {path.replace("/", "."): json.dumps(_plain(value)) for path, value in flatten(config).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _covers(rule: str, key: str) -> bool:
    return key.startswith(rule[:-1]) if rule.endswith("*") else key == rule or key.startswith(rule + ".")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _commit() -> str:
    """The commit of this package, with "+changes" if the tree differs from it; "" outside its repository."""
    package = Path(__file__).parents[1]
    commit = _git(package, "log", "-1", "--format=%H", "--", "errors.py")
    if not commit:
        return ""
    changes = _git(package, "status", "--porcelain", "--untracked-files=no")
    return _git(package, "rev-parse", "HEAD") + ("+changes" if changes else "")


def _git(directory: Path, *command: str) -> str:
    arguments: Sequence[str] = ("git", "-C", str(directory), *command)
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
