"""What a run directory says about its run, and which config changes a resumed run may bring."""

import json

import jax
import pytest

from localmim_jax.engine.record import changed, open_workdir, record_run
from localmim_jax.errors import ConfigError, StorageError

CONFIG = {
    "task": "pretrain",
    "batch_size": 8,
    "image_size": (32, 32),
    "data": {"name": "fake", "num_threads": 0, "num_workers": 0, "prefetch_batches": 2, "data_dir": "", "flip": True},
    "model": {"width": None, "mask_ratio": 0.75, "target": {"bins": 18}},
    "schedule": {"base_lr": 2e-4, "min_lr": 0.0},
    "mesh": {"data": -1, "fsdp": 1},
    "checkpoint": {"every_steps": 5, "every_epochs": 0.0, "keep_last": 2, "keep_every_steps": 0, "init_from": None},
    "log": {"every_steps": 50, "notes": ""},
    "eval": {"knn": {"enabled": False, "k": 20}},
}


def with_value(path: str, value) -> dict:
    config = json.loads(json.dumps(CONFIG))
    *parents, leaf = path.split(".")
    node = config
    for parent in parents:
        node = node[parent]
    node[leaf] = value
    return config


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("log.every_steps", 1),
        ("log.notes", "slow"),
        ("eval.knn.enabled", True),
        ("mesh.fsdp", 4),
        ("checkpoint.every_steps", 7),
        ("checkpoint.every_epochs", 1.0),
        ("checkpoint.keep_last", 9),
        ("checkpoint.keep_every_steps", 100),
        ("data.num_threads", 3),
        ("data.num_workers", 3),
        ("data.prefetch_batches", 3),
        ("data.data_dir", "/elsewhere"),
    ],
)
def test_what_does_not_change_the_learning_may_change(path, value):
    assert changed(CONFIG, with_value(path, value)) == []


@pytest.mark.parametrize(
    ("path", "value", "shown"),
    [
        ("batch_size", 16, "batch_size: 8 -> 16"),
        ("image_size", (32, 64), "image_size: [32, 32] -> [32, 64]"),
        ("data.name", "digits", 'data.name: "fake" -> "digits"'),
        ("data.flip", False, "data.flip: true -> false"),
        ("data.flip", 1, "data.flip: true -> 1"),
        ("model.width", 128, "model.width: null -> 128"),
        ("model.target.bins", 9, "model.target.bins: 18 -> 9"),
        ("schedule.base_lr", 1e-4, "schedule.base_lr: 0.0002 -> 0.0001"),
        ("checkpoint.init_from", "other", 'checkpoint.init_from: null -> "other"'),
        ("model.depth", 6, "model.depth: absent -> 6"),
        ("login", 6, "login: absent -> 6"),
    ],
)
def test_anything_else_may_not(path, value, shown):
    assert changed(CONFIG, with_value(path, value)) == [shown]


def test_numbers_are_equal_as_json():
    assert changed(CONFIG, with_value("schedule.min_lr", 0)) == []
    assert changed(CONFIG, with_value("batch_size", 8.0)) == []
    assert changed(CONFIG, with_value("image_size", [32.0, 32])) == []


@pytest.mark.parametrize("value", [None, False, 0.0, "", (0.0, 0.0)])
def test_a_new_key_that_is_off_is_no_change(value):
    """So that a run can resume after an update that added the key."""
    assert changed(CONFIG, with_value("data.new", value)) == []
    assert changed(with_value("data.new", value), CONFIG) == []


def test_a_removed_key_is_a_change():
    config = with_value("task", "pretrain")
    del config["task"]
    assert changed(CONFIG, config) == ['task: "pretrain" -> absent']


def test_the_records_of_a_run(tmp_path):
    record_run(tmp_path, CONFIG, resuming=False)
    assert json.loads((tmp_path / "config.json").read_text()) == json.loads(json.dumps(CONFIG))
    record_run(tmp_path, with_value("log.notes", "again"), resuming=True)
    assert json.loads((tmp_path / "config.json").read_text())["log"]["notes"] == "again"
    first, second = json.loads((tmp_path / "env.json").read_text())
    assert first["packages"]["jax"] == jax.__version__
    assert first["devices"] == {"count": jax.device_count(), "platform": "cpu", "kind": "cpu"}
    assert set(first) == set(second) >= {"time", "command", "host", "python", "commit", "processes"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "env.json"]


def test_a_resumed_run_with_another_config_is_refused_and_changes_nothing(tmp_path):
    record_run(tmp_path, CONFIG, resuming=False)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = with_value("batch_size", 16) | {"seed": 7}
    for config, message in (
        (other, r"another config \(batch_size: 8 -> 16; seed: absent -> 7\); resume with the old values"),
        (other | {"task": "finetune"}, r"is a run of the task pretrain, and this config's is finetune: give another"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            record_run(tmp_path, config, resuming=True)
        assert "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_before_the_first_checkpoint_the_config_may_be_put_right(tmp_path):
    record_run(tmp_path, CONFIG, resuming=False)
    record_run(tmp_path, with_value("batch_size", 16), resuming=False)
    assert json.loads((tmp_path / "config.json").read_text())["batch_size"] == 16


def test_a_damaged_record_is_a_storage_error(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(StorageError, match=r"config\.json is damaged \("):
        record_run(tmp_path, CONFIG, resuming=True)


def test_the_workdir_is_made_and_tried(tmp_path, monkeypatch):
    assert open_workdir(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert list((tmp_path / "a" / "b").iterdir()) == []
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_workdir("~/c") == tmp_path / "c"
    monkeypatch.chdir(tmp_path)
    assert open_workdir("d") == tmp_path / "d"


def test_an_unwritable_workdir_is_named_with_the_reason(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        StorageError, match=rf"workdir {tmp_path}/file/run cannot be written: Not a directory"
    ) as caught:
        open_workdir(tmp_path / "file" / "run")
    assert caught.value.exit_code == 4
    with pytest.raises(StorageError, match="file cannot be written: it is a file; give another"):
        open_workdir(tmp_path / "file")
    with pytest.raises(ConfigError, match="is a URL"):
        open_workdir("gs://bucket/run")
