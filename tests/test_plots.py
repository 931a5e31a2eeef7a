"""Plots: what is drawn is what the CSV beside it says."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from localmim_jax.analysis import plots
from localmim_jax.cli import figures
from localmim_jax.errors import StorageError

SERIES = {
    "Local": [{"norm": np.array([1.0, 2.0, 4.0])}, {"norm": np.array([3.0, 4.0, 6.0])}],
    "Global": [{"norm": np.array([0.5, 0.25, 0.125])}],
}


def test_lines_write_png_pdf_and_every_number(tmp_path):
    written = plots.lines(tmp_path / "new" / "figure", SERIES, {"norm": "gradient norm"}, "layer", "A title", "a note")
    assert written == [str(tmp_path / "new" / f"figure{ending}") for ending in (".png", ".pdf", ".csv")]
    picture = np.asarray(Image.open(written[0]).convert("RGB"))
    assert (picture != 255).any(axis=-1).mean() > 0.01
    assert Path(written[1]).read_bytes().startswith(b"%PDF-")
    header, *rows = csv.reader(Path(written[2]).read_text().splitlines())
    assert header == ["value", "name", "run", "layer", "number"]
    assert [row[1:] for row in rows[3:6]] == [
        ["Local", "1", "1", "3"],
        ["Local", "1", "2", "4"],
        ["Local", "1", "3", "6"],
    ]
    assert [row[1:] for row in rows[6:]] == [
        *(["Global", "0", "1", "0.5"], ["Global", "0", "2", "0.25"], ["Global", "0", "3", "0.125"])
    ]


def test_a_grid_has_rows_of_the_first_run(tmp_path):
    values = np.array([[1.0, 0.5], [0.25, 0.75], [0.0, 0.125]])
    written = plots.grid(tmp_path / "cka", values, ("a", "b"), "CKA")
    header, *rows = csv.reader(Path(written[2]).read_text().splitlines())
    assert header == ["layer of a", "layer of b", "CKA"]
    assert rows == [[str(i + 1), str(j + 1), f"{values[i, j]:.6g}"] for i in range(3) for j in range(2)]


def test_what_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        plots.lines(tmp_path / "file" / "figure", SERIES, {"norm": "gradient norm"}, "layer")


def test_convergence_places_each_evaluation_at_the_hours_before_it(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 0, "knn/accuracy": 0.1}\n'
        '{"step": 5, "time/device_hours": 0.5}\n'
        '{"step": 5, "knn/accuracy": 0.3}\n'
        '{"step": 9, "time/device_hours": 0.75}\n'
        '{"step": 9, "knn/accuracy": 0.4}\n'
    )
    values = figures.convergence(tmp_path)
    np.testing.assert_array_equal(values["x"], [0.0, 0.5, 0.75])
    np.testing.assert_array_equal(values["accuracy"], [0.1, 0.3, 0.4])
