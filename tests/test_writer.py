import json

import numpy as np
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from localmim_jax.engine.loggers.jsonl import JsonLines
from localmim_jax.engine.writer import MetricsWriter


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def training(step, **more):
    return {"loss": 1.0 / step, "learning_rate": 0.1, **more}


def test_scalars_pictures_and_texts_go_to_tensorboard_and_files(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    with MetricsWriter(tmp_path, 0) as writer:
        writer.write_run({"layer": {"kernel": np.zeros((3, 4), np.float32)}}, {"a": {"b": (1, 2)}, "c": None}, "a note")
        writer.write(10, training(10))
        paths = writer.write(20, {"eval/grid": pictures, "eval/text": "hello", "eval/accuracy": np.float32(0.5)})
    assert "layer/kernel" in (tmp_path / "parameters.txt").read_text()
    assert [path.name for path in paths] == ["eval-grid-0000020.png", "eval-grid-0000020-1.png"]
    for path, picture in zip(paths, pictures, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), picture)
    assert [(line["step"], line.get("loss"), line.get("eval/accuracy")) for line in lines(tmp_path)] == [
        (10, 0.1, None),
        (20, None, 0.5),
    ]
    events = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0})
    events.Reload()
    tags = set(events.Tags()["tensors"])
    assert {"loss", "eval/accuracy", "eval/grid", "eval/text", "parameters", "notes"} <= tags
    assert [(event.step, float(make_ndarray(event.tensor_proto))) for event in events.Tensors("loss")] == [
        (10, float(np.float32(0.1)))
    ]


def test_a_resumed_run_has_each_step_once(tmp_path):
    with MetricsWriter(tmp_path, 0) as writer:
        for step in (10, 20, 30):
            writer.write(step, training(step, **{"time/device_hours": step / 10}))
            writer.write(step, {"eval/accuracy": 0.5})
    with open(tmp_path / "metrics.jsonl", "a") as handle:
        handle.write('{"step": 40, "los')  # a kill in the middle of a line
    with MetricsWriter(tmp_path, 20) as writer:
        assert writer.hours_so_far() == 2.0
        found = [(line["step"], "loss" in line) for line in lines(tmp_path)]
        assert found == [(10, True), (10, False), (20, True)]  # step 20 is evaluated again
        writer.write(30, training(30))
    assert [line["step"] for line in lines(tmp_path)] == [10, 10, 20, 30]


def test_numbers_that_json_does_not_know_become_null(tmp_path):
    with MetricsWriter(tmp_path, 0) as writer:
        writer.write(1, {"loss": float("nan")})
    assert lines(tmp_path)[0]["loss"] is None


def test_a_log_that_cannot_be_written_ends_no_run(tmp_path, monkeypatch):
    (tmp_path / "pictures").write_text("a file where the directory should be")
    (tmp_path / "parameters.txt").mkdir()
    with MetricsWriter(tmp_path, 0) as writer:

        def full(*_):
            raise OSError(28, "No space left on device")

        writer.write_run({"a": np.zeros(2)}, {}, "")
        assert writer.write(1, {"grid": np.zeros((1, 4, 4, 3), np.uint8)}) == []
        monkeypatch.setattr(JsonLines, "scalars", full)
        writer.write(1, {"loss": 1.0})
        monkeypatch.undo()
        writer.write(2, {"loss": 1.0})
    assert not (tmp_path / "metrics.jsonl").exists()  # given up at the first failure
