"""The runs of `localmim study`, their rows and the CSV; slowly, that an interrupted study gives the same rows."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from absl import flags

from localmim_jax.cli import study, study_rows, study_runs
from localmim_jax.cli.experiments import metrics
from localmim_jax.cli.study_runs import Cell
from localmim_jax.errors import ConfigError, DataError
from localmim_jax.files import write_json

ROW = {
    **dict.fromkeys(study_runs.COLUMNS, ""),
    **{"backbone": "vit", "method": "hog_local_multi", "length": "short", "seed": "1", "knn": "0.5000"},
}


def options_of(*arguments):
    values = flags.FlagValues()
    study.define_flags(values)
    values(["study", *arguments])
    return values


def test_every_run_has_its_recipe_its_seed_and_its_start():
    options = options_of("--backbones=vit,swin", "--methods=all", "--lengths=short,long", "--seeds=2", "--root=runs")
    cells = study.selected(options)
    assert len(cells) == len({cell.place for cell in cells}) == 2 * 2 * (6 * 2 + 1)
    for cell in cells[:14]:
        start = cell.pretraining()
        if cell.method == "scratch":
            assert start is None
        else:
            config = start.load()
            assert (config.seed, config.num_epochs) == (cell.seed, study_runs.LENGTHS[cell.length])
            assert config.schedule.warmup_epochs == pytest.approx(config.num_epochs / 10)
            target, _, method = cell.method.partition("_")
            assert config.model.target.kind == target
            assert (len(set(config.model.taps)) > 1, len(set(config.model.target.cells)) > 1) == (
                method.startswith("local"),
                method.endswith("multi"),
            )
        tuned = cell.finetuning("10")
        assert tuned.start() == (None if start is None else Path(start.workdir))
        assert tuned.load().data.label_fraction == 0.1
    lines = study.listing(cells[:2], ("1",)).splitlines()
    assert [line.split()[0] for line in lines] == ["missing"] * 5


def test_changes_reach_every_run_and_do_not_undo_the_length():
    (cell,) = study.selected(
        options_of(
            "--methods=hog_local_multi",
            "--seeds=1",
            "--data=idx:/data/x",
            "--changes=num_epochs=9,batch_size=64,model.mask_ratio=0.5",
        )
    )
    config = cell.pretraining().load()
    assert (config.data.name, config.batch_size, config.num_epochs) == ("idx:/data/x", 64, 0.15)
    assert config.model.mask_ratio == 0.5  # which fine-tuning does not have
    assert cell.finetuning("1").load().data.name == "idx:/data/x"
    with pytest.raises(ConfigError, match="no such key"):
        study.selected(options_of("--methods=hog_local_multi", "--changes=batch_sise=64"))
    with pytest.raises(ConfigError, match=r"--methods=local: it must be one of scratch, "):
        study.selected(options_of("--methods=local"))


def test_rows_are_kept_in_one_order_and_replaced(tmp_path):
    path = tmp_path / "deep" / "rows.csv"
    for changes in ({}, {"seed": "0"}, {"method": "scratch", "length": "none"}, {"knn": "0.6000"}):
        study_rows.update(path, ROW | changes)
    rows = study_rows.read(path)
    assert [(row["method"], row["seed"], row["knn"]) for row in rows] == [
        ("scratch", "1", "0.5000"),
        ("hog_local_multi", "0", "0.5000"),
        ("hog_local_multi", "1", "0.6000"),
    ]
    assert study_rows.read(tmp_path / "missing.csv") == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("seed,", "sed,", 1), r"line 2: the columns must be backbone, "),
        (lambda text: text.replace("hog_local", "hog_lokal"), r"line 2 is of no run of the study: .*hog_lokal_multi"),
        (lambda text: text + "vit,scratch\n", r"line 3: the columns must be"),
        (lambda text: text.replace(",1,", ",one,", 1), r"line 2 is of no run"),
    ],
)
def test_other_files_are_refused(tmp_path, change, message):
    path = tmp_path / "rows.csv"
    study_rows.update(path, ROW)
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=message):
        study_rows.read(path)


def test_a_row_has_what_the_run_cost_and_what_is_not_done_yet_is_empty(tmp_path):
    cell = Cell("vit", "hog_local_multi", "short", 3, str(tmp_path))
    assert study_runs.row_of(cell) is None
    workdir = Path(cell.pretraining().workdir)
    workdir.mkdir(parents=True)
    speed = {"speed/teraflops": 0.02, "speed/steps_per_second": 4.0}
    reports = [
        {"step": 100, "progress/epoch": 0.1, "speed/cpu_seconds_per_step": 0.2, "time/device_hours": 0.01, **speed},
        {"step": 100, "knn/accuracy": 0.1},
        {"step": 150, "progress/epoch": 0.15, "speed/cpu_seconds_per_step": 0.4, "time/device_hours": 0.02, **speed},
    ]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(report) + "\n" for report in reports))
    values = dict.fromkeys((*study_runs.ONLINE, *study_runs.PROBES), 0.25) | {"parameters": "abc"}
    write_json(cell.place / study_runs.FEATURES, values)
    row = study_runs.row_of(cell)
    assert set(row) == set(study_runs.COLUMNS)
    assert [row[name] for name in study_runs.COSTS] == ["0.15", "150", "750", "40.0", "72"]
    assert (row["knn"], row["finetune_1"], row["seed"]) == ("0.2500", "", "3")


def small_idx(folder):
    """A dataset of the MNIST family: scikit-learn's digits, 400 to train on and 200 to test."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.clip(digits.images * 16, 0, 255).astype(np.uint8)
    folder.mkdir()
    for name, part in (("train", slice(0, 400)), ("t10k", slice(400, 600))):
        for what, array in (("images-idx3", images[part]), ("labels-idx1", digits.target[part].astype(np.uint8))):
            header = bytes((0, 0, 8, array.ndim)) + b"".join(size.to_bytes(4, "big") for size in array.shape)
            (folder / f"{name}-{what}-ubyte").write_bytes(header + array.tobytes())
    return folder


@pytest.mark.slow
def test_a_study_that_was_stopped_in_the_middle_gives_the_same_rows(tmp_path):
    data = small_idx(tmp_path / "data")
    small = "--config.model.width=32 --config.model.depth=6 --config.log.every_steps=2 --config.data.num_threads=1"
    command = [sys.executable, "-m", "localmim_jax", "study", "--run", "--methods=hog_local_multi,scratch", "--seeds=1"]
    command += [f"--data=idx:{data}", "--config.batch_size=5", "--finetune=10", *small.split()]

    def start(name):
        places = [f"--root={tmp_path / name}", f"--rows={tmp_path / name}.csv"]
        variables = {**os.environ, "XLA_FLAGS": "", "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled")}
        with open(tmp_path / f"{name}.log", "a") as log:
            return subprocess.Popen([*command, *places], env=variables, stdout=log, stderr=log)

    assert start("whole").wait() == 0, (tmp_path / "whole.log").read_text()
    stops = 0
    for pattern, method in (
        ("**/pretrain/metrics.jsonl", signal.SIGTERM),
        ("**/finetune_10/metrics.jsonl", signal.SIGKILL),
    ):
        process = start("stopped")
        while process.poll() is None and not list((tmp_path / "stopped").glob(pattern)):
            time.sleep(0.02)
        if process.poll() is None:
            process.send_signal(method)
        stops += process.wait() != 0
    assert stops == 2
    assert start("stopped").wait() == 0, (tmp_path / "stopped.log").read_text()
    whole, stopped = (study_rows.read(tmp_path / f"{name}.csv") for name in ("whole", "stopped"))
    assert len(whole) == 2
    assert whole[1]["finetune_10"]
    timed = ("cpu_seconds", "wall_seconds")
    for rows in (whole, stopped):
        for row in rows:
            for name in timed:
                assert float(row.pop(name)) >= 0
    assert whole == stopped
    for run in ("pretrain", "finetune_10"):
        cell = f"vit_hog_local_multi/short/seed0/{run}"
        first, second = (metrics(tmp_path / name / cell) for name in ("whole", "stopped"))
        losses = [[line["loss"] for line in lines if "loss" in line][-1] for lines in (first, second)]
        assert losses[0] == losses[1]
