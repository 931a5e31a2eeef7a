"""Compare the methods at small scale, with seeds, intervals and costs.

    localmim study                                      # lists the runs and their states
    localmim study --run                                # makes the missing runs; stop and repeat it at any time
    localmim study --page                               # writes docs/evidence.md from the rows
    localmim study --run --lengths=short,medium,long --seeds=5 --methods=all --finetune=1,10,100

Models of configs/study.py are pre-trained on Fashion-MNIST, each method for the same number of epochs and with several
seeds. Of each, k-NN, logistic probes with 1 % and 10 % of the labels, RankMe, effective rank and uniformity are
measured, and with --finetune it is fine-tuned on 1, 10 or 100 % of the labels. Every finished run adds or completes a
row of the CSV --rows. Several processes with the same command share the runs. --data=NAME and --config.a.b=value change
every run whose recipe has the key; give another --root and --rows then.
"""

from pathlib import Path

from absl import flags, logging

from localmim_jax.cli import evidence, evidence_figures, study_rows, study_runs
from localmim_jax.cli.experiments import State
from localmim_jax.cli.study_runs import Cell
from localmim_jax.cli.tables import changed, make, write
from localmim_jax.errors import ConfigError, InUseError
from localmim_jax.text import columns

OVERRIDES = "changes"


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_list("backbones", ["vit"], f"of {', '.join(study_runs.BACKBONES)}", flag_values=values)
    flags.DEFINE_list("methods", ["core"], "core (scratch and four others), all, or names", flag_values=values)
    flags.DEFINE_list("lengths", ["short"], f"of {', '.join(study_runs.LENGTHS)}", flag_values=values)
    flags.DEFINE_integer("seeds", 3, "of every run", flag_values=values, lower_bound=1)
    flags.DEFINE_list("finetune", [], "percentages of the labels to fine-tune on: 1, 10, 100", flag_values=values)
    flags.DEFINE_bool("run", False, "make the missing runs", flag_values=values)
    flags.DEFINE_bool("page", False, "write the page and its figures from --rows, after the runs", flag_values=values)
    flags.DEFINE_string("output", "docs/evidence.md", "the page", flag_values=values)
    flags.DEFINE_string("root", "runs/study", "directory of all runs", flag_values=values)
    flags.DEFINE_string("rows", "docs/evidence/study.csv", "CSV of the results", flag_values=values)
    flags.DEFINE_string("data", "", "data.name of every run; empty: the recipes'", flag_values=values)
    flags.DEFINE_list("changes", [], "key=value of every run; --config.key=value adds to it", flag_values=values)


def main(options: flags.FlagValues) -> None:
    found = selected(options)
    percents = among("finetune", options.finetune, study_runs.PERCENTS)
    if options.run:
        for cell in found:
            finish(cell, (), Path(options.rows))
        for percent in percents:
            for cell in found:
                finish(cell, (percent,), Path(options.rows))
    if options.page:
        files = write_page(Path(options.rows), Path(options.output))
        print("\n".join(f"written: {file}" for file in files))
    else:
        print(listing(found, percents))


def selected(options: flags.FlagValues) -> list[Cell]:
    """The cells that the flags name. Raises ConfigError: there is no such name, or a change that is impossible."""
    groups = {"core": study_runs.CORE, "all": study_runs.METHODS}
    methods = tuple(name for word in options.methods for name in groups.get(word, (word,)))
    changes = (*([f"data.name={options.data}"] if options.data else []), *options.changes)
    cells = study_runs.cells(
        among("backbones", options.backbones, study_runs.BACKBONES),
        among("methods", methods, study_runs.METHODS),
        among("lengths", options.lengths, tuple(study_runs.LENGTHS)),
        options.seeds,
        options.root,
        changes,
    )
    changed([run for cell in cells if (run := cell.pretraining())], list(changes))
    return cells


def among(flag: str, names: list[str] | tuple[str, ...], known: tuple[str, ...]) -> tuple[str, ...]:
    """The names. Raises ConfigError: one is not known."""
    for name in names:
        if name not in known:
            raise ConfigError(f"--{flag}={name}: it must be one of {', '.join(known)}")
    return tuple(names)


def finish(cell: Cell, percents: tuple[str, ...], rows: Path) -> None:
    """Does what is missing of a cell and writes its row. What another process does is left alone."""
    import jax

    from localmim_jax.engine.checkpoints.lock import RunLock

    start = cell.pretraining()
    if start is not None:
        make([start], Path(cell.root))
        if start.state() is not State.DONE:
            return
    if study_runs.measured(cell) is None:
        try:
            cell.place.mkdir(parents=True, exist_ok=True)
            with RunLock(cell.place):
                values = study_runs.measure(cell)
                logging.info("%s: %s", cell.place, values)
                jax.clear_caches()
        except InUseError as error:
            logging.warning("left alone: %s", error)
            return
    make([cell.finetuning(percent) for percent in percents], Path(cell.root))
    row = study_runs.row_of(cell)
    if row is not None:
        study_rows.update(rows, row)


def write_page(rows: Path, output: Path) -> list[Path]:
    """Writes the page and its figures, which lie beside the CSV; the files.

    Raises:
        DataError: the CSV is not one of a study.
        ConfigError: matplotlib is missing.
        StorageError: a file cannot be written.
    """
    found = study_rows.read(rows)
    images = evidence_figures.draw(found, rows.parent) if found else []
    names = [_link(image, output) for image in images]
    write(output, evidence.page(found, _link(rows, output), names))
    return [output, *images]


def _link(file: Path, page: Path) -> str:
    """A file as a page links to it."""
    folder = page.absolute().parent
    return file.absolute().relative_to(folder).as_posix() if file.absolute().is_relative_to(folder) else str(file)


def listing(cells: list[Cell], percents: tuple[str, ...]) -> str:
    """Every run with its state and its command."""
    lines = []
    for cell in cells:
        start = cell.pretraining()
        runs = [*([start] if start else []), *(cell.finetuning(percent) for percent in percents)]
        lines += [(run.progress(), run.command()) for run in runs]
        state = State.MISSING if study_runs.measured(cell) is None else State.DONE
        lines.append((state.value, f"features of {cell.place}"))
    return columns(lines)
