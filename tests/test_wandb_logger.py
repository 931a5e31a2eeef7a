"""Weights & Biases: the real package, offline. Its record of a run is read back."""

import json
import struct
import sys

import pytest

import localmim_jax
from localmim_jax.build import loggers_of
from localmim_jax.engine.loggers.wandb_logger import WeightsAndBiases
from localmim_jax.errors import ConfigError, Preempted
from tests.own_data import Stop, photographs, small_config
from tests.training import first_devices


def test_off_by_default_and_checked_before_the_run(monkeypatch):
    assert loggers_of(small_config()) == ()
    for project in ("a/b/c", "team/"):
        with pytest.raises(ConfigError, match="write PROJECT or ENTITY/PROJECT"):
            WeightsAndBiases(project)
    monkeypatch.setitem(sys.modules, "wandb", None)  # as where it is not installed
    with pytest.raises(ConfigError, match=r"log\.wandb=digits needs the package wandb: pip install"):
        loggers_of(small_config(**{"log.wandb": "digits"}))


def messages(content):
    """The messages in a file of W&B: after 7 bytes, LevelDB's log format, blocks of 32 KiB with pieces of messages."""
    assert content[:4] == b":W&B"
    position, message = 7, b""
    while position + 7 <= len(content):
        left = 2**15 - position % 2**15
        if left < 7:  # too short for a header: filled with zeros
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        message += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole message, or the last piece of one
            yield message
            message = b""


def records(file):
    """[(kind, {key: value})] of an offline run's file."""
    from wandb.proto import wandb_internal_pb2

    found = []
    for message in messages(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(message)
        if record.HasField("history"):
            items = record.history.item
            values = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
            found.append(("history", values))
        elif record.HasField("run"):
            config = {item.key: json.loads(item.value_json) for item in record.run.config.update}
            values = {"id": record.run.run_id, "entity": record.run.entity, "project": record.run.project}
            found.append(("run", values | config))
        elif record.HasField("config"):
            found.append(("config", {item.key: json.loads(item.value_json) for item in record.config.update}))
    return found


@pytest.mark.slow
@pytest.mark.wandb
def test_an_offline_run_is_continued(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    run = tmp_path / "digits"
    config = small_config(**{"log.wandb": "team/digits", "eval.reconstruction.num_images": 1})
    with first_devices(1):
        with pytest.raises(Preempted):
            localmim_jax.train(config, run, dataset=photographs(8), loggers=(Stop(1),))
        localmim_jax.train(config, run, dataset=photographs(8))
    known = json.loads((run / "wandb.json").read_text())
    files = sorted((run / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2
    first, second = map(records, files)
    for part in (first, second):
        started = next(values for kind, values in part if kind == "run")
        assert started["id"] == known["id"]
        assert (started["entity"], started["project"]) == ("team", "digits")
        recorded = [values for kind, values in part if kind == "config" and "data.name" in values]
        assert recorded[0]["data.name"] == "python:list:8"
    steps = [[v["step"] for kind, v in part if kind == "history" and "loss" in v] for part in (first, second)]
    assert steps == [[1, 2], [3]]
    losses = {v["step"]: v["loss"] for part in (first, second) for kind, v in part if kind == "history" and "loss" in v}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert losses == pytest.approx({line["step"]: line["loss"] for line in lines if "loss" in line})
    assert any("reconstruction/grid" in key for kind, v in second if kind == "history" for key in v)
    pictures = [path for path in (run / "wandb").rglob("*.png") if "media" in path.parts]
    assert pictures
