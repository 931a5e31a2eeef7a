"""The figures of docs/evidence.md, drawn from the rows of `localmim study`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from localmim_jax.analysis.plots import new_figure
from localmim_jax.cli import evidence, study_runs
from localmim_jax.errors import StorageError

Row = Mapping[str, str]

# Okabe and Ito's colors, which color-blind people tell apart. Pixels are warm and HOG is cold; LocalMIM is filled.
_STYLE = {
    "pixels_global_single": {"color": "#E69F00", "marker": "o", "markerfacecolor": "white"},
    "pixels_local_multi": {"color": "#D55E00", "marker": "o"},
    "hog_global_single": {"color": "#56B4E9", "marker": "s", "markerfacecolor": "white"},
    "hog_local_multi": {"color": "#0072B2", "marker": "s"},
    "hog_global_multi": {"color": "#009E73", "marker": "^", "markerfacecolor": "white"},
    "hog_local_single": {"color": "#CC79A7", "marker": "D", "markerfacecolor": "white"},
}
_GRAY = "0.45"
_COSTS = {"gflops": ("pre-training, GFLOP of the model", 1.0), "cpu_seconds": ("pre-training, CPU minutes", 60.0)}


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draws one figure of accuracy against compute and one of online measures for each backbone; the files.

    Raises:
        ConfigError: matplotlib is missing.
        StorageError: a file cannot be written.
    """
    files = []
    for backbone, name in evidence.BACKBONES.items():
        trained = [row for row in rows if row["backbone"] == backbone and row["method"] != study_runs.SCRATCH]
        if trained:
            untrained = [row for row in rows if row["backbone"] == backbone and row["method"] == study_runs.SCRATCH]
            files.append(_compute(folder / f"compute_{backbone}.png", trained, untrained, name))
            files.append(_online(folder / f"online_{backbone}.png", trained, name))
    return files


def _compute(path: Path, trained: Sequence[Row], untrained: Sequence[Row], name: str) -> Path:
    """Probe and k-NN against FLOPs and CPU time, mean and single seeds, both costs logarithmic."""
    figure, axes = new_figure(2)
    from matplotlib import ticker

    for axis, (cost, (label, unit)) in zip(axes, _COSTS.items(), strict=True):
        for method, style in _STYLE.items():
            points = _points(trained, method, cost, unit)
            if not points:
                continue
            x, y = zip(*((sum(c) / len(c), sum(a) / len(a)) for c, a in points), strict=True)
            axis.plot(x, y, label=evidence.LABELS[method], linewidth=1.8, markersize=6, zorder=3, **style)
            for amounts, accuracies in points:
                axis.scatter(amounts, accuracies, s=9, color=style["color"], alpha=0.5, linewidths=0, zorder=2)
        if untrained:
            level = 100 * sum(float(row["probe_10"]) for row in untrained) / len(untrained)
            axis.axhline(level, color=_GRAY, linestyle="--", linewidth=1)
            axis.annotate("untrained encoder", (0.02, level), xycoords=("axes fraction", "data"), xytext=(0, 3),
                          textcoords="offset points", color=_GRAY, fontsize="small")  # fmt: skip
        axis.set(xscale="log", xlabel=label)
        axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 3, 4, 5, 6, 8)))
        axis.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,g}"))
        axis.xaxis.set_minor_formatter(ticker.NullFormatter())
        _tidy(axis)
    return _finish(path, figure, axes, f"Accuracy against the cost of pre-training ({name})")


def _online(path: Path, trained: Sequence[Row], name: str) -> Path:
    """Probe against each measure without labels, one point a run."""
    figure, axes = new_figure(len(evidence.ONLINE))
    for axis, (measure, label) in zip(axes, evidence.ONLINE.items(), strict=True):
        sign = -1 if measure == "uniformity" else 1
        for method, style in _STYLE.items():
            runs = [row for row in trained if row["method"] == method]
            if runs:
                x = [sign * float(row[measure]) for row in runs]
                y = [100 * float(row["probe_10"]) for row in runs]
                axis.plot(x, y, linestyle="", label=evidence.LABELS[method], markersize=5, **style)
        axis.set(xlabel=label)
        _tidy(axis)
    return _finish(path, figure, axes, f"Measures without labels against the probe, one point a run ({name})")


def _finish(path: Path, figure: Any, axes: Any, title: str) -> Path:
    """Labels what both figures show on their y axes, and saves."""
    axes[0].set_ylabel("probe with 10 % of the labels, %")
    _share_y(axes)
    figure.suptitle(title, fontsize="medium")
    _legend(figure, axes[0])
    return _save(path, figure)


def _points(rows: Sequence[Row], method: str, cost: str, unit: float) -> list[tuple[list[float], list[float]]]:
    """(costs, accuracies in %) of the seeds of each length, in the order of the lengths."""
    found = []
    for length in study_runs.LENGTHS:
        runs = [row for row in rows if (row["method"], row["length"]) == (method, length)]
        if runs:
            accuracies = [100 * float(row["probe_10"]) for row in runs]
            found.append(([float(row[cost]) / unit for row in runs], accuracies))
    return found


def _share_y(axes: Sequence[Any]) -> None:
    for axis in axes[1:]:
        axis.sharey(axes[0])
        axis.tick_params(labelleft=False)


def _tidy(axis: Any) -> None:
    axis.grid(alpha=0.25, linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)


def _legend(figure: Any, axis: Any) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize="small")


def _save(path: Path, figure: Any) -> Path:
    from matplotlib import pyplot

    figure.set_size_inches(figure.get_size_inches()[0], 4.6)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130, metadata={"Software": None})
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        pyplot.close(figure)
    return path
