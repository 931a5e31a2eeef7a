"""Plots of the analyses: PNG and PDF, beside the CSV that they were drawn from."""

import csv
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from localmim_jax.analysis.shared import Series
from localmim_jax.errors import ConfigError, StorageError

_MARKERS = "osD^vP"


def lines(
    path: Path, series: Series, labels: Mapping[str, str], x_label: str, title: str = "", note: str = ""
) -> list[str]:
    """One panel for every value, one line for every name in it: the mean over its runs, and the range as a band.

    Args:
        path: without ending.
        series: see `runs.Series`.
        labels: {value: its axis' label with the unit}.
        x_label: of the layers, which count from 1; an "x" among the values of a run places them instead.
        title, note: above and below the panels.

    Returns:
        The files written.
    """
    table: list[Sequence[Any]] = [("value", "name", "run", x_label, "number")]
    figure, axes = new_figure(len(labels))
    for axis, (value, label) in zip(axes, labels.items(), strict=True):
        for number, (name, parts) in enumerate(series.items()):
            y = np.array([part[value] for part in parts])
            x = np.mean([part.get("x", np.arange(1, y.shape[1] + 1)) for part in parts], axis=0)
            style = {"marker": _MARKERS[number % len(_MARKERS)], "color": f"C{number}"}
            axis.plot(x, y.mean(axis=0), label=name if len(y) == 1 else f"{name} ({len(y)} seeds)", **style)
            if len(y) > 1:
                axis.fill_between(x, y.min(axis=0), y.max(axis=0), alpha=0.2, color=style["color"], linewidth=0)
            for run, part in enumerate(parts):
                places = part.get("x", np.arange(1, y.shape[1] + 1))
                table += [(value, name, run, f"{p:g}", f"{v:.6g}") for p, v in zip(places, part[value], strict=True)]
        axis.set(xlabel=x_label, ylabel=label)
        axis.ticklabel_format(axis="y", scilimits=(-3, 4), useMathText=True)  # 6 x 10^-4 instead of 0.00060
        axis.grid(alpha=0.3)
        if all("x" not in part for parts in series.values() for part in parts):
            axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend(frameon=False)
    return _save(path, figure, title, note, table)


def grid(path: Path, values: np.ndarray, names: Sequence[str], label: str, title: str = "") -> list[str]:
    """A matrix of numbers in 0..1, layers of one run by layers of another. Returns the files written."""
    figure, (axis,) = new_figure(1)
    picture = axis.imshow(values, origin="lower", vmin=0, vmax=1, cmap="magma")
    rows, columns = values.shape
    axis.set(xlabel=f"layer of {names[1]}", ylabel=f"layer of {names[0]}")
    axis.set_xticks(range(columns), range(1, columns + 1))
    axis.set_yticks(range(rows), range(1, rows + 1))
    figure.colorbar(picture, ax=axis, label=label)
    table: list[Sequence[Any]] = [(f"layer of {names[0]}", f"layer of {names[1]}", label)]
    table += [(i + 1, j + 1, f"{values[i, j]:.6g}") for i, j in np.ndindex(values.shape)]
    return _save(path, figure, title, "", table)


def new_figure(panels: int) -> tuple[Any, Any]:
    """(figure, its panels in a row). Raises ConfigError: matplotlib is missing."""
    try:
        import matplotlib
    except ImportError as error:
        raise ConfigError("plots need matplotlib: pip install 'localmim-jax[demo]'") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, panels, figsize=(4.2 * panels + 0.6, 3.6), squeeze=False, layout="constrained")
    return figure, axes[0]


def _save(path: Path, figure: Any, title: str, note: str, table: list[Sequence[Any]]) -> list[str]:
    from matplotlib import pyplot

    if title:
        figure.suptitle(textwrap.fill(title, 56 * len(figure.axes)), fontsize="medium")
    if note:
        figure.supxlabel(note, fontsize="small", color="0.35")
    files = [path.with_name(path.name + ending) for ending in (".png", ".pdf", ".csv")]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(files[0], dpi=120)
        figure.savefig(files[1], metadata={"CreationDate": None})
        with open(files[2], "w", newline="") as handle:
            csv.writer(handle, lineterminator="\n").writerows(table)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        pyplot.close(figure)
    return [str(file) for file in files]
