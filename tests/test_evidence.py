"""The page of the evidence: it agrees with its CSV, and its verdicts with what is known."""

import re
from pathlib import Path

import pytest

from localmim_jax.cli import evidence, study, study_rows, study_runs

DOCS = Path(study.__file__).parents[2] / "docs"


def row(method, length="short", seed=0, **values):
    known = dict.fromkeys(study_runs.COLUMNS, "0.5") | dict.fromkeys(study_runs.ACCURACIES[3:], "")
    known |= {"backbone": "vit", "method": method, "length": length, "seed": str(seed)}
    return known | {name: str(value) for name, value in values.items()}


def three(method, accuracies, length="short", **values):
    return [row(method, length, seed, probe_10=value, **values) for seed, value in enumerate(accuracies)]


def test_the_committed_page_is_the_one_of_the_committed_rows():
    """After new rows: `localmim study --page`."""
    page = (DOCS / "evidence.md").read_text()
    figures = re.findall(r"!\[\]\((.*)\)", page)
    assert figures
    assert all((DOCS / name).is_file() for name in figures)
    rows = study_rows.read(DOCS / "evidence" / "study.csv")
    assert rows
    assert page == evidence.page(rows, "evidence/study.csv", figures)


def test_verdicts_need_more_than_one_seed_and_an_interval_without_zero():
    rows = three("hog_local_multi", (0.80, 0.82, 0.84)) + three("hog_global_single", (0.79, 0.80, 0.81))
    rows += three("pixels_local_multi", (0.85, 0.86, 0.87)) + three("hog_global_multi", (0.83, 0.81, 0.84))
    rows += three("hog_local_single", (0.7,))
    (table,) = evidence.claims(rows)
    lines = [line for line in table.splitlines() if "probe, 10 %" in line]
    found = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[5:9]] for line in lines}
    assert found["local multi-scale beats global single-scale (HOG)"] == ["+2.0 [+1.0, +3.0]", "3", "+0.3", "holds"]
    assert found["HOG is a better target than pixels (LocalMIM)"][-1] == "the opposite"
    assert found["local beats global for several scales"][-1] == "undecided"
    assert found["local reconstruction of one scale helps"] == ["-9.0", "1", "+0.0", "too few seeds"]
    said = evidence.summary(rows)
    assert "one scale helps: of 3 comparisons, too few seeds in 3; differences from -9.0" in said
    assert (
        "(HOG): of 3 comparisons, holds in 1, undecided in 2; differences from +0.0 to +2.0 points (seeds: 3)." in said
    )


def test_what_is_not_run_is_said():
    assert evidence.missing([row("hog_local_multi"), row("scratch", "none")]).splitlines()[2:] == [
        "- encoders: small Swin",
        "- lengths: medium; long",
        "- methods: pixels, global, single-scale (MAE-like); HOG, global, single-scale (MaskFeat-like); "
        "pixels, local, multi-scale (LocalMIM); HOG, global, multi-scale; HOG, local, single-scale",
        "- measures: fine-tuned, 1 %; fine-tuned, 10 %; fine-tuned, all",
    ]


def test_methods_are_compared_at_one_cost():
    runs = [row("pixels_global_single", length, 0, gflops=cost, probe_10=accuracy)
            for length, cost, accuracy in (("short", 10, 0.6), ("medium", 40, 0.7), ("long", 160, 0.75))]  # fmt: skip
    assert evidence.at_cost(runs, "gflops", 20, "probe_10") == pytest.approx(65.0)
    assert evidence.at_cost(runs, "gflops", 160, "probe_10") == pytest.approx(75.0)
    assert evidence.at_cost(runs, "gflops", 5, "probe_10") is None
    assert evidence.at_cost(runs[:1], "gflops", 10, "probe_10") is None
    ours = row("hog_local_multi", "short", 0, gflops=20, cpu_seconds=1000, probe_10=0.66)
    (table,) = evidence.costs([*runs, ours])
    (line,) = [line for line in table.splitlines() if "small ViT, short" in line]
    cells = [cell.strip() for cell in line.split("|")[4:9]]
    assert cells == ["+6.0", "+1.0", "-", "x 2.00", "x 2000.00"]


def test_correlations_leave_out_what_was_not_trained():
    values = [{"rankme": seed, "effective_rank": 5 - seed, "uniformity": -seed} for seed in range(4)]
    rows = [row("hog_local_multi", "short", seed, probe_10=seed / 9, **found) for seed, found in enumerate(values)]
    (table,) = evidence.online([*rows, row("scratch", "none", 0, rankme=9, probe_10=0)])
    assert re.search(r"small ViT, short \| 4 +\| \+1.00 +\| -1.00 +\| \+1.00", table)


def test_the_command_writes_the_page_its_figures_and_nothing_else(tmp_path):
    rows = tmp_path / "evidence" / "study.csv"
    for length, cost in (("short", 10), ("medium", 40)):
        for found in three("hog_local_multi", (0.8, 0.9), length, gflops=cost, cpu_seconds=cost):
            study_rows.update(rows, found)
    study_rows.update(rows, row("scratch", "none"))
    files = study.write_page(rows, tmp_path / "evidence.md")
    assert [str(file.relative_to(tmp_path)) for file in files] == [
        "evidence.md",
        "evidence/compute_vit.png",
        "evidence/online_vit.png",
    ]
    page = (tmp_path / "evidence.md").read_text()
    assert "![](evidence/compute_vit.png)" in page
    assert "| HOG, local, multi-scale (LocalMIM) | 2     |" in page
    assert "| no pre-training                    | 1     |" in page
    assert all(file.stat().st_size > 1000 for file in files)
    assert study.write_page(tmp_path / "none.csv", tmp_path / "empty.md") == [tmp_path / "empty.md"]
    assert "No run is finished yet." in (tmp_path / "empty.md").read_text()
