"""Every small file that a run writes and reads back, damaged in every way: one line, or a warning and no harm."""

import json
import shutil
from pathlib import Path

import pytest

from localmim_jax.analysis.shared import remembered
from localmim_jax.cli.compare import newest
from localmim_jax.cli.experiments import last_step, metrics
from localmim_jax.data.bad_examples import BadExamples
from localmim_jax.detection.predict import read_categories
from localmim_jax.engine.checkpoints import lock, manifest
from localmim_jax.engine.checkpoints.lock import RunLock
from localmim_jax.engine.record import record_run
from localmim_jax.engine.writer import MetricsWriter
from localmim_jax.errors import ConfigError, DataError, StorageError, UserError
from localmim_jax.files import parse_json, read_reports
from localmim_jax.tasks import initialize

GOLDEN = Path(__file__).parent / "goldens" / "checkpoint_v1"
GARBAGE = {
    "empty": b"",
    "cut": b'{"task": "pretr',
    "list": b"[1, 2]",
    "number": b"7",
    "text": b'"config"',
    "null": b"null",
    "true": b"true",
    "bytes": bytes(range(128, 256)),
    "zeros": bytes(64),
    "other keys": b'{"a": [{}], "": null}',
    "huge number": b'{"step": 1' + b"0" * 5000 + b"}",
    "nested lists": b"[" * 100_000,
    "nested objects": b'{"task":' * 3000 + b"1" + b"}" * 3000,
    "nested and legal": b"[" * 400 + b"]" * 400,
    "utf-16": '{"task": "pretrain"}'.encode("utf-16"),
}
NO_OBJECT = [name for name in GARBAGE if name != "other keys"]


def one_line(error) -> None:
    assert isinstance(error.value, UserError)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("garbage", [*NO_OBJECT, "other keys"])
def test_the_config_of_a_run(tmp_path, garbage):
    (tmp_path / "config.json").write_bytes(GARBAGE[garbage])
    with pytest.raises((StorageError, ConfigError), match=r"config\.json") as error:
        record_run(tmp_path, {"task": "pretrain"}, resuming=True)
    one_line(error)
    assert (tmp_path / "config.json").read_bytes() == GARBAGE[garbage]
    with pytest.raises(DataError, match=r"config\.json") as error:
        initialize.run_config(tmp_path)
    one_line(error)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("model",), 5),
        (("model", "width"), "wide"),
        (("model", "taps"), {"a": 1}),
        (("image_size",), None),
        (("data",), []),
        (("model", "target"), None),
        (("task",), ["pretrain"]),
    ],
)
def test_a_config_with_a_value_of_another_kind(tmp_path, path, value):
    config = json.loads((GOLDEN / "config.json").read_text())
    node = config
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"config\.json is damaged .*: the model is unknown") as error:
        initialize.run_config(tmp_path)
    one_line(error)


@pytest.mark.parametrize("garbage", [name for name in GARBAGE if name != "list"])
def test_the_list_of_starts_is_begun_again(tmp_path, garbage, caplog):
    (tmp_path / "env.json").write_bytes(GARBAGE[garbage])
    record_run(tmp_path, {}, resuming=True)
    assert len(json.loads((tmp_path / "env.json").read_text())) == 1
    assert (tmp_path / "env.json.damaged").read_bytes() == GARBAGE[garbage]
    assert "env.json is damaged" in caplog.text


def test_lines_of_the_log_that_are_damaged_are_left_out_and_kept_aside(tmp_path, caplog):
    good = {"step": 1, "learning_rate": 0.1, "loss": 2.5, "time/device_hours": 0.5}
    evaluated = {"step": 1, "test/top1": 0.25}
    wrong = [b'{"step": "1"}', b'{"step": true}', b'{"step": -1}', b'{"step": 1, "loss": "low"}', b'{"loss": 1.0}']
    lines = [json.dumps(good).encode(), *GARBAGE.values(), *wrong, json.dumps(evaluated).encode()]
    content = b"\n".join(lines) + b'\n{"step": 2, "lo'
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(content)
    assert read_reports(path) == ([good, evaluated], len(GARBAGE) + len(wrong))
    assert metrics(tmp_path) == [good, evaluated]
    assert newest(tmp_path)["test/top1"] == 0.25
    assert f"{len(GARBAGE) + len(wrong)} damaged lines are left out" in caplog.text
    with MetricsWriter(tmp_path, 5) as writer:
        assert writer.hours_so_far() == 0.5
        writer.write(6, {"loss": 1e30})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 1, 6]
    assert read_reports(path)[1] == 0
    assert (tmp_path / "metrics.jsonl.damaged").read_bytes() == content


@pytest.mark.parametrize("garbage", GARBAGE)
def test_the_length_of_a_run_in_the_table_of_experiments(tmp_path, garbage):
    (tmp_path / "metrics.jsonl").write_text('{"step": 4, "progress/epoch": 2.0}\n')
    (tmp_path / "config.json").write_bytes(GARBAGE[garbage])
    with pytest.raises(DataError, match=r"config\.json is damaged") as error:
        last_step(tmp_path)
    one_line(error)


SIGNATURES = [
    *GARBAGE.values(),
    *(
        json.dumps({"host": lock.socket.gethostname(), "pid": pid, "process_start": "alive"}).encode()
        for pid in ("text", [1], {}, True, 1.5, -1, 0, 2**31, 2**70, "../../..", None)
    ),
    b'{"host": ["a"], "pid": 3}',
]


@pytest.mark.parametrize("content", SIGNATURES)
def test_a_signature_that_is_none_is_taken_over(tmp_path, content):
    (tmp_path / "run.lock").write_bytes(content)
    assert lock.holder(tmp_path) is None
    with RunLock(tmp_path):
        assert lock.holder(tmp_path)
    assert not (tmp_path / "run.lock").exists()


@pytest.mark.parametrize("garbage", GARBAGE)
def test_a_manifest(tmp_path, garbage):
    shutil.copytree(GOLDEN / "checkpoints" / "3", tmp_path / "3")
    (tmp_path / "3" / "manifest.json").write_bytes(GARBAGE[garbage])
    with pytest.raises(StorageError, match=r"manifest\.json") as error:
        manifest.verify(tmp_path / "3")
    one_line(error)


@pytest.mark.parametrize("garbage", GARBAGE)
def test_the_description_of_converted_weights(tmp_path, garbage):
    (tmp_path / initialize.CONVERTED).write_bytes(GARBAGE[garbage])
    with pytest.raises(DataError) as error:
        initialize.read(str(tmp_path))
    one_line(error)


@pytest.mark.parametrize("garbage", GARBAGE)
def test_the_categories_of_a_detector(tmp_path, garbage):
    (tmp_path / "categories.json").write_bytes(GARBAGE[garbage])
    with pytest.raises(DataError, match=r"categories\.json") as error:
        read_categories(tmp_path)
    one_line(error)


@pytest.mark.parametrize("garbage", GARBAGE)
def test_an_analysis_that_was_kept_is_made_again(tmp_path, garbage):
    (tmp_path / "analysis").mkdir()
    (tmp_path / "analysis" / "layers.json").write_bytes(GARBAGE[garbage])
    assert remembered(tmp_path, "layers", "last", {}, None) is None


def test_the_list_of_bad_examples(tmp_path):
    path = tmp_path / "bad.txt"
    path.write_bytes(b"\n".join([*GARBAGE.values(), b"9" * 5000, b"9" * 12, b"\xb2\ta", b"-1\tb", b"5\tc\td"]) + b"\n")
    bad = BadExamples("set", 100, 0.03, path)
    bad.add(1, "x", "why")
    bad.add(5, "c", "d")
    assert path.read_bytes().endswith(b"5\tc\td\n1\tx\twhy\n")


def test_the_kind_of_content_is_named():
    for content, found in ((b"[]", "a list"), (b"3", "a number"), (b"null", "null"), (b'"a"', "a text")):
        with pytest.raises(ValueError, match=f"^{found} instead of an object$"):
            parse_json(content, dict)
