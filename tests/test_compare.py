import json

import pytest

from localmim_jax.cli.compare import newest, table
from localmim_jax.errors import DataError


def write(run, *lines):
    run.mkdir()
    (run / "metrics.jsonl").write_text("".join(json.dumps({"time": 1.0, **line}) + "\n" for line in lines))
    return run


def test_the_newest_evaluations_side_by_side(tmp_path):
    first = write(
        tmp_path / "first",
        {"step": 0, "test/top1": 0.1},
        {"step": 5, "learning_rate": 0.1, "loss": 2.0, "norm/gradient": 1.0},
        {"step": 9, "test/top1": 0.75, "test/loss": None},
        {"step": 9, "learning_rate": 0.1, "loss": 1.0},
    )
    second = write(tmp_path / "second", {"step": 4, "test/top1": 0.5}, {"step": 4, "knn/accuracy": 0.25})
    lines = table({"first": newest(first), "second": newest(second)}).splitlines()
    assert [line.split() for line in lines] == [
        ["first", "second"],
        ["step", "9", "4"],
        ["test/top1", "0.75", "0.5"],
        ["test/loss", "nan", "-"],
        ["knn/accuracy", "-", "0.25"],
    ]


def test_a_directory_without_evaluations_is_refused(tmp_path):
    with pytest.raises(
        DataError, match=r"metrics\.jsonl cannot be read \(No such file or directory\): give directories of runs"
    ):
        newest(tmp_path / "nowhere")
    with pytest.raises(DataError, match="has no evaluation yet"):
        newest(write(tmp_path / "run", {"step": 1, "learning_rate": 0.1, "loss": 1.0}))
