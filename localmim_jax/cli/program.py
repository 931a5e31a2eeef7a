"""What every command shares: flags, `--config.a.b=value`, and how errors reach the user.

An error that the user can fix is one line on stderr and the exit status of `localmim_jax.errors`. Any other error keeps
its traceback and ends with 1. Nothing here imports jax, so a mistyped flag is reported at once.
"""

import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import NoReturn

from absl import flags
from absl import logging as absl_logging
from ml_collections import ConfigDict

from localmim_jax import process
from localmim_jax.errors import ConfigError, DataError, Interrupted, UserError, out_of_memory_hint
from localmim_jax.recipes import hints
from localmim_jax.recipes.load import load_config, recipe_files
from localmim_jax.recipes.override import flatten, override
from localmim_jax.text import columns

HELP = {"-h", "-help", "--help", "-helpfull", "--helpfull", "-helpshort", "--helpshort"}


def run(command: ModuleType, name: str, arguments: Sequence[str]) -> None:
    """Parses the arguments, calls the command's `main` with its flags, and ends the process with its exit status.

    Args:
        command: a module with `define_flags(values)`, `main(options)` and a docstring, which opens the `--help` text.
            Its list flag named `POSITIONAL`, if it has this, takes the arguments without "--". Its list flag named
            `OVERRIDES` takes the --config.* of a command that chooses its recipes itself, each as "key=value".
        name: what error lines start with.
        arguments: without the command's name.
    """
    set_up()
    try:
        names = (getattr(command, name, "") for name in ("POSITIONAL", "OVERRIDES"))
        options = parse(arguments, command.define_flags, *names)
        if options is None:
            print(help_text(command.define_flags, command.__doc__ or ""))
        else:
            command.main(options)
    except UserError as error:
        fail(name, error)
    except KeyboardInterrupt:
        _exit(f"{name}: interrupted", Interrupted.exit_code)
    except Exception as error:
        hint = out_of_memory_hint(error)
        if hint is None:
            raise
        _exit(f"{name}: {hint}", ConfigError.exit_code)


def fail(name: str, error: UserError) -> NoReturn:
    """Ends the process with the error in one line."""
    _exit(f"{name}: {hints.one_line(str(error))}", error.exit_code)


def set_up() -> None:
    """What a process needs once before it calls the library, a notebook too: quiet logs, a TensorFlow without GPUs."""
    _log_our_own_messages()
    process.set_up()


def parse(
    arguments: Sequence[str],
    define: Callable[[flags.FlagValues], None],
    positional: str = "",
    changes: str = "",
) -> flags.FlagValues | None:
    """The flags in `arguments`, or None where help is asked for. Raises `ConfigError` for anything wrong."""
    if HELP.intersection(arguments):
        return None
    values = flags.FlagValues()
    define(values)
    values.set_gnu_getopt(bool(positional))  # flags may follow other arguments
    overrides, resets, others = _sort_arguments(arguments, "config" in values or bool(changes))
    try:
        rest = values(["command", *others])[1:]
    except flags.Error as error:
        raise ConfigError(hints.flag_error(error, values)) from error
    config = load_config(values.config, _pretrained(overrides)) if "config" in values and values.config else None
    if changes:
        if resets:
            raise ConfigError(f"--config.{resets[0]}=None: this command sets values only")
        values[changes].value = [*(values[changes].value or []), *overrides]
    if positional:
        values[positional].value = [*(values[positional].value or []), *rest]
    elif rest:
        raise ConfigError(hints.leftover(rest[0], values, flatten(config) if config else {}))
    if "config" in values:
        if config is None and (values["config"].default is None or overrides or resets):
            raise ConfigError(_explain_no_config(overrides, resets))
        values["config"].value = None if config is None else override(config, overrides, resets)
    return values


def _pretrained(overrides: Sequence[str]) -> Callable[[], ConfigDict] | None:
    """Reads the config of the run that checkpoint.init_from names, for recipes that want it; None: it names none."""
    key = "checkpoint.init_from="
    named = [text.removeprefix(key) for text in overrides if text.startswith(key)]
    if not named:
        return None

    def read() -> ConfigDict:
        from localmim_jax.convert import files  # these load jax, and few recipes need them
        from localmim_jax.tasks import initialize

        try:
            return initialize.run_config(files.local_path(named[-1]))
        except DataError as error:
            raise DataError(
                f"checkpoint.init_from: {str(error).partition(': give')[0]}; this recipe takes the model from a run; "
                "for weights without a run, use a recipe of their model, such as vit_b_100ep_finetune"
            ) from error

    return read


def workdir(path: str | None) -> str:
    """The run directory as given, with "~" and relative paths resolved; cloud paths (`gs://...`) stay as they are."""
    if not path:
        raise ConfigError("no --workdir given; for example --workdir=runs/first")
    if path.startswith(("http://", "https://")):
        raise ConfigError(f"--workdir={path}: a run cannot write to a web address; give a directory")
    return path if "://" in path else os.path.abspath(os.path.expanduser(path))


def help_text(define: Callable[[flags.FlagValues], None], usage: str) -> str:
    """`usage`, then one line per flag."""
    values = flags.FlagValues()
    define(values)
    names = [name for name in values if name not in ("flagfile", "undefok")]
    return f"{usage.strip()}\n\n{columns([(f'  --{name}', _describe(values[name])) for name in names])}"


def _describe(flag: flags.Flag) -> str:
    """A flag's help in one line, without what absl adds to it, and its default where that says something."""
    text = re.sub(r"^<[^>]*>: |;?\s*repeat this option to specify.*", "", flag.help, flags=re.DOTALL)
    default = ",".join(map(str, flag.default)) if isinstance(flag.default, list) else flag.default
    return text if default in (None, "", 0, False) else f"{text} ({default})"


def _sort_arguments(arguments: Sequence[str], with_config: bool) -> tuple[list[str], list[str], list[str]]:
    """(overrides as "key=value", keys set to None, everything else)."""
    overrides, resets, others = [], [], []
    arguments = list(arguments)
    while arguments:
        argument = arguments.pop(0)
        match = re.fullmatch(r"--?(no)?config\.([^=]*)(?:=(.*))?", argument, re.DOTALL) if with_config else None
        if match is None:
            others.append(argument)
            continue
        negated, key, value = match.groups()
        if value is None and not negated and arguments and not arguments[0].startswith("--"):
            value = arguments.pop(0)
        if value is None:
            value = "false" if negated else ""
        if value in ("None", "none"):
            resets.append(key)
        else:
            overrides.append(f"{key}={value}")
    return overrides, resets, others


def _explain_no_config(overrides: Sequence[str], resets: Sequence[str]) -> str:
    changed = [text.split("=", 1)[0] for text in overrides] + list(resets)
    what = f"--config.{changed[0]} changes a recipe, and there is no --config" if changed else "no --config given"
    return f"{what}; for example --config={recipe_files()[0]}"


def _log_our_own_messages() -> None:
    """Information from this package, warnings from everybody, on stderr: orbax and TFDS tell a great deal."""
    for name, value in (("TF_CPP_MIN_LOG_LEVEL", "2"), ("TF_ENABLE_ONEDNN_OPTS", "0")):
        os.environ.setdefault(name, value)  # or TensorFlow, which computes nothing here, would chatter
    absl_logging.use_absl_handler()
    absl_logging.set_verbosity(absl_logging.INFO)
    handler = absl_logging.get_absl_handler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    handler.addFilter(lambda entry: entry.levelno >= logging.WARNING or "localmim_jax" in entry.pathname)


def _exit(message: str, status: int) -> NoReturn:
    print(message, file=sys.stderr)
    prefetch = sys.modules.get("localmim_jax.engine.prefetch")
    if prefetch is not None and prefetch.hanging():  # Python would wait for the thread, which waits for a dead disk
        print("a read does not end; exiting without it", file=sys.stderr)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)
    raise SystemExit(status)
