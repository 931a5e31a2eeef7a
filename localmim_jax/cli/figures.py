"""The figures of `cli.tables`: measures finished runs, remembers it in their directories, draws what is there."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from localmim_jax.analysis import attention, gradients, layers, plots, shared
from localmim_jax.cli import published
from localmim_jax.cli.experiments import State, metrics
from localmim_jax.cli.published import NAMES, SMALL_NAMES, Row, Table
from localmim_jax.tasks import initialize

BATCHES = {"full": 50, "small": 20}  # of gradients
IMAGES = {"full": 256, "small": 200}  # whose attention is looked at


def draw(name: str, table: Table, scale: str, seeds: int, root: str, results: Path, measure: bool) -> str:
    """Draws one figure a backbone from the runs that are done; the text for the console.

    Args:
        measure: also measure runs that are not remembered yet, which takes a while.
    """
    note = published.SMALL_HEADING if scale == "small" else ""
    written = []
    for backbone in dict.fromkeys(row.backbone for row in table.rows):
        rows = [row for row in table.rows if row.backbone == backbone]
        title = f"{table.title} ({NAMES[backbone] if scale == 'full' else SMALL_NAMES[NAMES[backbone]]})"
        for ending, (labels, x_label, values) in parts_of(name, scale, measure).items():
            series = collect(rows, scale, seeds, root, values)
            if series:
                path = results / f"{name}_{backbone}{ending}"
                written += plots.lines(path, series, labels, x_label, title, note)
    text = "\n".join(f"written: {file}" for file in written) or "nothing to draw yet: no run is done and measured"
    return f"# {table.title}\n{note}\n{text}"


Values = Callable[[Path], shared.Values | None]


def parts_of(name: str, scale: str, measure: bool) -> dict[str, tuple[dict[str, str], str, Values]]:
    """{ending of the file name: (labels, label of the x axis, what gives a run's values)} of a figure."""

    def values(kind: str, at: str, settings: dict[str, int], compute: Callable) -> Values:
        def of(run: Path) -> shared.Values | None:
            config = initialize.run_config(run)
            todo = (lambda place: compute(config, place, **settings)) if measure else None
            return shared.remembered(run, kind, at, settings, todo)

        return of

    attended = values("attention", "last", {"images": IMAGES[scale]}, attention.measure)
    norms = values("gradients", "middle", {"batches": BATCHES[scale]}, gradients.measure)
    if name == "figure1":
        return {"": (gradients.LABELS, "layer", norms)}
    if name == "figure2":
        return {"": ({key: attention.LABELS[key] for key in ("kl", "nmi")}, "layer", attended)}
    if name == "layers":
        known = values("knn", "last", {"k": 20}, layers.measure)
        distance = {"distance": attention.LABELS["distance"]}
        return {"": (layers.LABELS, "layer", known), "_distance": (distance, "layer", attended)}
    return {"": ({"accuracy": "k-NN accuracy"}, "device hours", convergence)}


def convergence(run: Path) -> shared.Values | None:
    """k-NN accuracy against the device hours that the report before it counted; None without such evaluations."""
    hours = 0.0
    x: list[tuple[int, float]] = []
    y: list[float] = []
    for line in metrics(run):
        hours = line.get("time/device_hours", hours)
        if line.get("knn/accuracy") is not None and line["step"] not in [step for step, _ in x]:
            x.append((line["step"], hours))
            y.append(line["knn/accuracy"])
    return {"x": np.array([place for _, place in x]), "accuracy": np.array(y)} if y else None


def collect(rows: list[Row], scale: str, seeds: int, root: str, values: Values) -> shared.Series:
    """The values of every finished run, by the label of its row."""
    series: shared.Series = {}
    for row in rows:
        places = [published.pretraining(row, scale, seed, root) for seed in range(seeds)]
        found = [values(Path(run.workdir)) for run in places if run.state() is State.DONE]
        parts = [part for part in found if part is not None]
        if parts:
            series[row.label[-1]] = parts
    return series
