"""Reproduce the paper's tables and figures: their runs, states and results.

    localmim tables table1                           # lists runs, commands and states; prints the table
    localmim tables table2 --scale=small --run       # first trains the missing runs
    localmim tables table1 table2 figure1 figure2 --scale=small --run

Names: table1, table2, ablations, figure1 (gradient norms), figure2 (attention), layers (k-NN and mean attention
distance of each layer), convergence. Without a name, all except the ablations. Tables and figures share runs. --run
trains the missing runs in this process, one after the other. You can stop it at any time; the same command resumes.
Two processes with the same command share the runs. For long runs, use the listed commands on suitable machines.
--data=NAME and --config.a.b=value apply to every run whose recipe has the key, for example
--data=folder:/data/imagenet --config.accum_steps=4. Results are then those of the changed recipes, so use another
--root. Tables are written as Markdown and CSV, figures as PNG, PDF and CSV, into ROOT/SCALE/results.
"""

import csv
import dataclasses
import io
import os
import runpy
import statistics
from pathlib import Path

from absl import flags, logging

from localmim_jax.cli import published
from localmim_jax.cli.experiments import Run, State, state_of, top1
from localmim_jax.cli.published import Row, Table
from localmim_jax.errors import ConfigError, InUseError, StorageError
from localmim_jax.recipes import hints
from localmim_jax.recipes.load import find as find_recipe
from localmim_jax.recipes.load import load_config
from localmim_jax.recipes.override import flatten
from localmim_jax.text import columns, markdown

FIGURES = ("figure1", "figure2", "layers", "convergence")

POSITIONAL = "names"
OVERRIDES = "changes"


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_enum("scale", "full", published.SCALES, "full (ImageNet) or small (digits, CPU)", flag_values=values)
    flags.DEFINE_integer(
        "seeds", 0, "seeds per run; 0: one at full scale, two at small scale", flag_values=values, lower_bound=0
    )
    flags.DEFINE_bool("run", False, "train the missing runs", flag_values=values)
    flags.DEFINE_string("root", "runs/reproduction", "directory of all runs", flag_values=values)
    flags.DEFINE_string("data", "", "data.name of every run; empty: the recipes'", flag_values=values)
    flags.DEFINE_list("changes", [], "key=value for every run; --config.key=value adds to it", flag_values=values)
    flags.DEFINE_list("names", [], "tables and figures; may be given without the flag", flag_values=values)


def main(options: flags.FlagValues) -> None:
    if options.scale == "small":  # tiny programs: compiling is much of the work
        os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")
    seeds = options.seeds or {"full": 1, "small": 2}[options.scale]
    tables = {name: find(name, options.scale) for name in options.names or [*published.TABLES]}
    results = Path(options.root) / options.scale / "results"
    every = [run for table in tables.values() for run in published.runs(table, options.scale, seeds, options.root)]
    changes = [*([f"data.name={options.data}"] if options.data else []), *options.changes]
    needed = {run.workdir: run for run in changed(every, changes)}
    if options.run:
        make(list(needed.values()), Path(options.root))
    print(listing(list(needed.values())))
    for name, table in tables.items():
        text = show(name, table, options.scale, seeds, options.root, results, options.run)
        print(f"\n{text}")


def changed(runs: list[Run], changes: list[str]) -> list[Run]:
    """The runs with "key=value" changes, each of them in the runs whose recipe has the key.

    Raises:
        ConfigError: no run's recipe has a key, or a value is impossible.
    """
    if not changes:
        return runs
    keys = {run.config: set(flatten(load_config(run.config))) for run in runs}
    for change in changes:
        key = change.partition("=")[0]
        if not any(key in known for known in keys.values()):
            raise ConfigError(f"--config.{key}: {hints.unknown_key(key, set().union(*keys.values()))}")
    found = []
    for run in runs:
        own = tuple(change for change in changes if change.partition("=")[0] in keys[run.config])
        # What makes the run the one it is comes last and wins.
        run = dataclasses.replace(run, overrides=(*own, *run.overrides))
        run.load()
        found.append(run)
    return found


def find(name: str, scale: str) -> Table:
    """A table or figure by its name.

    Raises:
        ConfigError: there is none of this name.
    """
    if name == "ablations":
        file = {"full": "configs/ablations.py", "small": "configs/small.py"}[scale]
        return published.ablations(runpy.run_path(find_recipe(file))["ablations"]())
    if name not in published.TABLES:
        known = ", ".join([*published.TABLES, "ablations"])
        raise ConfigError(f"unknown table or figure {name!r}: choose from {known}")
    return published.TABLES[name]


def make(runs: list[Run], root: Path) -> None:
    """Does what is missing, in order. What is done or running elsewhere is left alone, and so is what waits for that.

    Several processes can do this for one root at the same time.
    """
    import jax

    cache = "jax_compilation_cache_dir"
    if getattr(jax.config, cache) is None:  # fine-tunings with one seed share their programs
        jax.config.update(cache, os.path.abspath(root / "compiled"))
    for number, run in enumerate(runs, start=1):
        state, start = run.state(), run.start()
        if state is State.RUNNING:
            logging.warning("%s is running elsewhere: skipped", run.workdir)
        elif state is not State.DONE and start is not None and state_of(start) is not State.DONE:
            logging.warning("%s starts from %s, which is not done: skipped", run.workdir, start)
        elif state is not State.DONE:
            logging.info("run %d of %d: %s", number, len(runs), run.command())
            try:
                run.run()
            except InUseError as error:  # since we looked
                logging.warning("skipped: %s", error)


def listing(runs: list[Run]) -> str:
    """Every run with its state and its command."""
    return columns([(run.progress(), run.command()) for run in runs])


def show(name: str, table: Table, scale: str, seeds: int, root: str, results: Path, run: bool) -> str:
    """Draws a figure, or renders a table and writes it as Markdown and CSV; the text for the console."""
    if name in FIGURES:
        from localmim_jax.cli import figures

        return figures.draw(name, table, scale, seeds, root, results, run)
    rows = [measure(row, scale, seeds, root) for row in table.rows]
    head = [*table.columns, "published" if scale == "full" else "published, full scale", "measured", "seeds"]
    heading = [f"# {table.title}", "", "ImageNet-1K top-1 after fine-tuning, %, 100 epochs of pre-training."]
    if scale == "small":
        heading = [f"# {table.title}", "", published.SMALL_HEADING, "Top-1 of 297 test digits after fine-tuning, %."]
    heading.append("Measured: mean and sample standard deviation over the seeds.")
    text = "\n".join([*heading, "", *markdown(head, rows)]) + "\n"
    sheet = io.StringIO()
    csv.writer(sheet, lineterminator="\n").writerows([head, *rows])
    write(results / f"{name}.md", text)
    write(results / f"{name}.csv", sheet.getvalue())
    return f"{text}\nwritten: {results / name}.md, {results / name}.csv"


def measure(row: Row, scale: str, seeds: int, root: str) -> list[str]:
    """The cells of one row. Only runs that are done count."""
    runs = [published.finetuning(row, scale, seed, root) for seed in range(seeds)]
    values = [top1(Path(run.workdir)) for run in runs if run.state() is State.DONE]
    percent = [100 * value for value in values if value is not None]
    shown = f"{statistics.mean(percent):.1f}" if percent else "-"
    if len(percent) > 1:
        shown += f" ± {statistics.stdev(percent):.1f}"
    label = row.label if scale == "full" else [published.SMALL_NAMES.get(cell, cell) for cell in row.label]
    return [*label, "-" if row.published is None else f"{row.published:.1f}", shown, str(len(percent))]


def write(path: Path, text: str) -> None:
    """Raises StorageError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error
