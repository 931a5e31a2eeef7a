"""The page docs/evidence.md: tables and verdicts from the rows of `localmim study`, and nothing else."""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from localmim_jax.analysis import statistics
from localmim_jax.analysis.statistics import Interval
from localmim_jax.cli import evidence_text, study_runs
from localmim_jax.engine.metrics import duration
from localmim_jax.text import markdown

Row = Mapping[str, str]

LABELS = {
    "scratch": "no pre-training",
    "pixels_global_single": "pixels, global, single-scale (MAE-like)",
    "hog_global_single": "HOG, global, single-scale (MaskFeat-like)",
    "pixels_local_multi": "pixels, local, multi-scale (LocalMIM)",
    "hog_local_multi": "HOG, local, multi-scale (LocalMIM)",
    "hog_global_multi": "HOG, global, multi-scale",
    "hog_local_single": "HOG, local, single-scale",
}
BACKBONES = {"vit": "small ViT", "swin": "small Swin"}
MEASURES = {
    "knn": "k-NN",
    "probe_1": "probe, 1 %",
    "probe_10": "probe, 10 %",
    "finetune_1": "fine-tuned, 1 %",
    "finetune_10": "fine-tuned, 10 %",
    "finetune_100": "fine-tuned, all",
}
VERDICTS = ("holds", "undecided", "the opposite", "too few seeds")
MIN_SEEDS = 3  # below, no verdict: two seeds agree by chance half of the time
ONLINE = {"rankme": "RankMe", "effective_rank": "effective rank", "uniformity": "uniformity (negated)"}


@dataclasses.dataclass(frozen=True)
class Claim:
    """What the paper says, as a difference between two methods that should be above zero.

    Attributes:
        text: the claim.
        better, worse: methods.
        published: the difference of top-1 accuracies that the supplement has for ViT-B, in %; None for none.
    """

    text: str
    better: str
    worse: str
    published: float | None = None


CLAIMS = (
    Claim("local multi-scale beats global single-scale (HOG)", "hog_local_multi", "hog_global_single", 0.3),
    Claim("local multi-scale beats global single-scale (pixels)", "pixels_local_multi", "pixels_global_single"),
    Claim("several scales at the top layer alone do not help", "hog_global_single", "hog_global_multi", 0.2),
    Claim("local reconstruction of one scale helps", "hog_local_single", "hog_global_single", 0.0),
    Claim("local beats global for several scales", "hog_local_multi", "hog_global_multi", 0.5),
    Claim("HOG is a better target than pixels (LocalMIM)", "hog_local_multi", "pixels_local_multi"),
)


def page(rows: Sequence[Row], csv_name: str, figures: Sequence[str] = ()) -> str:
    """The page as Markdown, a pure function of the rows.

    Args:
        rows: see `study_rows.read`.
        csv_name: where the page says they are, relative to it.
        figures: files of images, relative to it, as `evidence_figures.draw` names them.
    """
    pictures: dict[str, list[str]] = {}
    for name in figures:
        pictures.setdefault(name.rpartition("/")[2].partition("_")[0], []).append(f"![]({name})")
    parts = [evidence_text.HEADING.format(csv=csv_name), evidence_text.SETTING]
    if not rows:
        return "\n".join([*parts, "No run is finished yet.\n"])
    parts[1:1] = ["## Summary", summary(rows)]
    parts += ["## Results", evidence_text.RESULTS, *results(rows)]
    parts += ["## The paper's claims", evidence_text.CLAIMS, *claims(rows)]
    parts += ["## Accuracy against compute", evidence_text.COMPUTE, *pictures.get("compute", ()), *costs(rows)]
    parts += [
        "## Do ranks and uniformity predict the probe?",
        evidence_text.ONLINE,
        *pictures.get("online", ()),
        *online(rows),
    ]
    parts += ["## What this does not show", evidence_text.CAVEATS, missing(rows)]
    parts += ["## Costs and commands", spent(rows), evidence_text.COMMANDS]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def results(rows: Sequence[Row]) -> list[str]:
    """One table for each backbone and length."""
    found = []
    for backbone, length in _settings(rows):
        head = ["method", "seeds", *(label for name, label in MEASURES.items() if _any(rows, name)), "GFLOP", "CPU min"]
        lines = []
        for method, label in LABELS.items():
            group = _group(rows, backbone, method, length)
            if group:
                cells = [_spread(group, name) for name in MEASURES if _any(rows, name)]
                cost = [_mean(group, "gflops", "{:,.0f}"), _mean(group, "cpu_seconds", "{:.1f}", 60)]
                lines.append([label, str(len(group)), *cells, *cost])
        epochs = study_runs.LENGTHS[length]
        found += [
            f"### {BACKBONES[backbone].replace('small', 'Small')}, {length}: {epochs:g} epochs",
            _table(head, lines),
        ]
    return found


def claims(rows: Sequence[Row]) -> list[str]:
    """One table: every claim for every backbone, length and measure that has both methods."""
    head = ["claim", "encoder", "length", "measure", "difference, points", "seeds", "published, ViT-B", "verdict"]
    lines = []
    for claim in CLAIMS:
        published = "-" if claim.published is None else f"{claim.published:+.1f}"
        for *cells, difference in comparisons(rows, claim):
            cells = [claim.text, *cells, _interval(difference), str(difference.count), published]
            lines.append([*cells, verdict(difference)])
    return [_table(head, lines)]


def comparisons(rows: Sequence[Row], claim: Claim) -> list[tuple[str, str, str, Interval]]:
    """(encoder, length, measure, difference in points) wherever both methods have been measured with one seed."""
    found = []
    for backbone, length in _settings(rows):
        for measure, label in MEASURES.items():
            better, worse = (
                _by_seed(_group(rows, backbone, method, length), measure) for method in (claim.better, claim.worse)
            )
            difference = statistics.paired_difference(better, worse)
            if difference is not None:
                found.append((BACKBONES[backbone], length, label, difference))
    return found


def summary(rows: Sequence[Row]) -> str:
    """One line a claim: in how many comparisons it holds, and the smallest and largest difference in points."""
    lines = []
    for claim in CLAIMS:
        differences = [row[-1] for row in comparisons(rows, claim)]
        if not differences:
            lines.append(f"- {claim.text}: not measured yet.")
            continue
        counts = Counter(map(verdict, differences))
        said = ", ".join(f"{word} in {counts[word]}" for word in VERDICTS if counts[word])
        sizes = [difference.mean for difference in differences]
        seeds = sorted({difference.count for difference in differences})
        lines.append(
            f"- {claim.text}: of {len(differences)} comparisons, {said}; differences from {min(sizes):+.1f} to "
            f"{max(sizes):+.1f} points (seeds: {' or '.join(map(str, seeds))})."
        )
    return "\n".join([evidence_text.SUMMARY, "", *lines])


def verdict(difference: Interval) -> str:
    """What an interval says about a difference that should be above zero."""
    if difference.count < MIN_SEEDS:
        return "too few seeds"
    if not difference.excludes_zero:
        return "undecided"
    return "holds" if difference.low > 0 else "the opposite"


def costs(rows: Sequence[Row], measure: str = "probe_10") -> list[str]:
    """LocalMIM against the global methods at the same epochs, FLOPs and CPU seconds."""
    head = ["LocalMIM", "against", "length", "same epochs", "same FLOPs", "same CPU time", "its FLOPs", "its CPU time"]
    lines = []
    for backbone, length in _settings(rows):
        for ours in ("pixels_local_multi", "hog_local_multi"):
            for theirs in ("pixels_global_single", "hog_global_single"):
                mine, other = (_group(rows, backbone, method, length) for method in (ours, theirs))
                if not mine or not other:
                    continue
                every = [row for row in rows if (row["backbone"], row["method"]) == (backbone, theirs)]
                cells = [_difference(mine, other, measure)]
                for cost in ("gflops", "cpu_seconds"):
                    reference = {
                        seed: value
                        for seed, row in _seeds(mine).items()
                        if (value := at_cost(_of_seed(every, seed), cost, float(row[cost]), measure)) is not None
                    }
                    found = statistics.paired_difference(_by_seed(mine, measure), reference)
                    cells.append("-" if found is None else _interval(found))
                for cost in ("gflops", "cpu_seconds"):
                    ratio = float(_mean(mine, cost, "{}")) / float(_mean(other, cost, "{}"))
                    cells.append(f"x {ratio:.2f}")
                lines.append([LABELS[ours], LABELS[theirs], f"{BACKBONES[backbone]}, {length}", *cells])
    return [_table(head, lines)] if lines else []


def at_cost(rows: Sequence[Row], cost: str, amount: float, measure: str) -> float | None:
    """The measure of one seed's runs of several lengths at a cost in between, in %; None outside of their range.

    It is interpolated along the logarithm of the cost.
    """
    pairs = sorted((float(row[cost]), 100 * float(row[measure])) for row in rows if row[measure])
    if len(pairs) < 2 or not pairs[0][0] <= amount <= pairs[-1][0]:
        return None
    x, y = zip(*pairs, strict=True)
    return float(np.interp(math.log(amount), np.log(x), y))


def online(rows: Sequence[Row], measure: str = "probe_10") -> list[str]:
    """Rank correlations of the measures that need no labels with the probe."""
    trained = [row for row in rows if row["method"] != study_runs.SCRATCH]
    groups: dict[str, list[Row]] = {}
    for backbone, length in _settings(trained):
        groups[f"{BACKBONES[backbone]}, {length}"] = [
            row for row in trained if (row["backbone"], row["length"]) == (backbone, length)
        ]
    for backbone, name in BACKBONES.items():
        every = [row for row in trained if row["backbone"] == backbone]
        if len({row["length"] for row in every}) > 1:
            groups[f"{name}, all lengths"] = every
    lines = []
    for name, group in groups.items():
        accuracy = [float(row[measure]) for row in group]
        found = [
            statistics.rank_correlation(
                [(-1 if key == "uniformity" else 1) * float(row[key]) for row in group], accuracy
            )
            for key in ONLINE
        ]
        lines.append([name, str(len(group)), *("-" if math.isnan(value) else f"{value:+.2f}" for value in found)])
    return [_table(["runs", "number", *ONLINE.values()], lines)]


def missing(rows: Sequence[Row]) -> str:
    """What the study has recipes for and no row yet."""
    encoders = [name for backbone, name in BACKBONES.items() if not any(row["backbone"] == backbone for row in rows)]
    lengths = [length for length in study_runs.LENGTHS if not any(row["length"] == length for row in rows)]
    methods = [label for method, label in LABELS.items() if not any(row["method"] == method for row in rows)]
    measures = [label for measure, label in MEASURES.items() if not _any(rows, measure)]
    groups = {"encoders": encoders, "lengths": lengths, "methods": methods, "measures": measures}
    lines = [f"- {name}: {'; '.join(found)}" for name, found in groups.items() if found]
    return "\n".join(["Not run yet:", "", *lines]) if lines else ""


def spent(rows: Sequence[Row]) -> str:
    """How many runs there are, and what they took."""
    trained = [row for row in rows if row["method"] != study_runs.SCRATCH]
    flops, cpu, wall = (sum(float(row[name]) for row in trained) for name in ("gflops", "cpu_seconds", "wall_seconds"))
    return (
        f"{len(trained)} pre-trainings: {flops / 1e3:,.1f} TFLOP of the models, {duration(cpu)} of CPU time in their "
        f"steps, {duration(wall)} of wall time."
    )


def _settings(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(backbone, length) pairs that have a pre-training, in order."""
    there = {(row["backbone"], row["length"]) for row in rows}
    return [(b, length) for b in study_runs.BACKBONES for length in study_runs.LENGTHS if (b, length) in there]


def _group(rows: Sequence[Row], backbone: str, method: str, length: str) -> list[Row]:
    wanted = (backbone, method, "none" if method == study_runs.SCRATCH else length)
    return [row for row in rows if (row["backbone"], row["method"], row["length"]) == wanted]


def _any(rows: Sequence[Row], name: str) -> bool:
    return any(row[name] for row in rows)


def _seeds(group: Sequence[Row]) -> dict[int, Row]:
    return {int(row["seed"]): row for row in group}


def _of_seed(rows: Sequence[Row], seed: int) -> list[Row]:
    return [row for row in rows if int(row["seed"]) == seed]


def _by_seed(group: Sequence[Row], measure: str) -> dict[int, float]:
    """In %."""
    return {seed: 100 * float(row[measure]) for seed, row in _seeds(group).items() if row[measure]}


def _difference(first: Sequence[Row], second: Sequence[Row], measure: str) -> str:
    found = statistics.paired_difference(_by_seed(first, measure), _by_seed(second, measure))
    return "-" if found is None else _interval(found)


def _interval(found: Interval) -> str:
    ends = "" if math.isnan(found.low) else f" [{found.low:+.1f}, {found.high:+.1f}]"
    return f"{found.mean:+.1f}{ends}"


def _spread(group: Sequence[Row], measure: str) -> str:
    values = list(_by_seed(group, measure).values())
    if not values:
        return "-"
    mean, deviation = statistics.spread(values)
    few = f" ({len(values)})" if len(values) < len(group) else ""
    return (f"{mean:.1f}" if math.isnan(deviation) else f"{mean:.1f} ± {deviation:.1f}") + few


def _mean(group: Sequence[Row], name: str, style: str, divisor: float = 1.0) -> str:
    return style.format(sum(float(row[name]) for row in group) / len(group) / divisor)


def _table(head: list[str], lines: list[list[str]]) -> str:
    return "\n".join(markdown(head, lines))
