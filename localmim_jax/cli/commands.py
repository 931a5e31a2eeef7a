"""The commands of `localmim`, and which one a command line names."""

import ast
import importlib
import importlib.util
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from localmim_jax.cli import program
from localmim_jax.errors import ConfigError
from localmim_jax.recipes import hints
from localmim_jax.text import columns

# name: its module, see `program.run`. A group's commands have names of two words.
COMMANDS = {
    **{
        name: f"localmim_jax.cli.{name}"
        for name in (
            *("train", "plan", "plan_table", "prepare", "evaluate", "knn", "probe", "compare", "visualize"),
            *("segment", "detect", "features", "convert", "tables", "study", "imagenet_val"),
        )
    },
    **{f"analysis {name}": f"localmim_jax.analysis.{name}" for name in ("gradients", "attention", "layers")},
    **{
        f"bench {name}": f"localmim_jax.bench.{name}"
        for name in ("step_time", "input_speed", "variants", "attention", "hog", "sparse_swin", "gpu_hours")
    },
}
GROUPS = ("analysis", "bench")
_HEADING = """LocalMIM in JAX: masked image modeling with local multi-scale reconstruction.

usage: localmim COMMAND --flag=value ...
       localmim COMMAND --help
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """`localmim`: runs the command that the arguments (default: those of the process) name, or lists all commands."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in program.HELP:
        print(f"{_HEADING}\n{listing(COMMANDS)}")
        return
    try:
        name, rest = find(arguments)
    except ConfigError as error:
        program.fail("localmim", error)
    if name in GROUPS:
        print(listing([command for command in COMMANDS if command.startswith(f"{name} ")]))
        return
    program.run(importlib.import_module(COMMANDS[name]), f"localmim {name}", rest)


def find(arguments: Sequence[str]) -> tuple[str, Sequence[str]]:
    """(name of a command, its arguments), or (name of a group, []) where only the group or its help is asked for.

    Raises:
        ConfigError: there is no such command.
    """
    first, rest = arguments[0], arguments[1:]
    if first in COMMANDS:
        return first, rest
    if first in GROUPS:
        if not rest or rest[0] in program.HELP:
            return first, []
        first, rest = f"{first} {rest[0]}", rest[1:]
        if first in COMMANDS:
            return first, rest
    if first.startswith("-"):
        raise ConfigError(f"no command before {first}; for example localmim train {first}")
    near = hints.did_you_mean(first, [*COMMANDS, *GROUPS], "localmim ")
    raise ConfigError(f"no command {first!r}{near or '; localmim --help lists the commands'}")


def listing(names: Collection[str]) -> str:
    """One line a command: its name and the first line of its help."""
    return columns([(f"  {name}", _summary(COMMANDS[name])) for name in names])


def _summary(module: str) -> str:
    """The first line of a module's docstring, read from its file: importing all of them, and jax, takes seconds."""
    spec = importlib.util.find_spec(module)
    assert spec is not None, module
    assert spec.origin is not None, module
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").partition("\n")[0]
