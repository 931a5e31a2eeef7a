"""Print the newest evaluations of several runs side by side.

    localmim compare --runs=runs/quickstart_finetune,runs/quickstart_scratch

Each value is the last one in the run's metrics.jsonl; "-" means that there is none.
"""

import math
from pathlib import Path

from absl import flags, logging

from localmim_jax.errors import DataError
from localmim_jax.files import read_reports
from localmim_jax.recipes import common_flags
from localmim_jax.text import columns


def define_flags(values: flags.FlagValues) -> None:
    common_flags.define_runs(values)


def main(options: flags.FlagValues) -> None:
    common_flags.require(options, runs="runs/first,runs/second")
    print(table({run: newest(Path(run).expanduser()) for run in options.runs}))


def newest(run: Path) -> dict[str, float]:
    """The last value of everything a run has evaluated, and the "step" of the last evaluation.

    Raises:
        DataError: it is no run directory, or it has no evaluation yet.
    """
    file = run / "metrics.jsonl"
    try:
        lines, damaged = read_reports(file)
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}): give directories of runs") from error
    if damaged:
        logging.warning("%s: %d damaged lines are left out", file, damaged)
    found: dict[str, float] = {}
    for line in lines:
        if "learning_rate" not in line:  # only a report of training has that
            found |= {name: math.nan if value is None else value for name, value in line.items() if name != "time"}
    if not found:
        raise DataError(f"{run} has no evaluation yet")
    return found


def table(runs: dict[str, dict[str, float]]) -> str:
    """One line a value, one column a run."""
    names = list(dict.fromkeys(name for values in runs.values() for name in values))
    rows = [["", *runs]]
    for name in names:
        rows.append([name, *(f"{values[name]:.4g}" if name in values else "-" for values in runs.values())])
    return columns(rows)
