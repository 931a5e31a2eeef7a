"""A run's own small files, damaged: used, set aside, or one line."""

import json
import logging
import math
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import strategies as st

from localmim_jax.cli.compare import newest
from localmim_jax.detection.predict import read_categories
from localmim_jax.engine.checkpoints import lock, manifest
from localmim_jax.engine.checkpoints.lock import RunLock
from localmim_jax.engine.record import record_run
from localmim_jax.engine.writer import MetricsWriter
from localmim_jax.tasks.initialize import run_config
from tests.fuzz.mutate import JSON, changed, damaged
from tests.fuzz.rounds import fuzz, result_or_one_line

GOLDEN = Path(__file__).parents[1] / "goldens" / "checkpoint_v1"
CONFIG = json.loads((GOLDEN / "config.json").read_text())
MANIFEST = json.loads((GOLDEN / "checkpoints" / "3" / "manifest.json").read_text())
SIGNATURE = {"host": lock.socket.gethostname(), "pid": os.getpid(), "process_start": "1", "started": "today"}
REPORTS = [{"step": 1, "learning_rate": 0.1, "loss": 2.5, "time/device_hours": 0.5}, {"step": 1, "test/top1": 0.25}]
CATEGORIES = {"categories": [{"id": 1, "name": "a"}, {"id": 3, "name": "b"}]}


def content_of(original, lines=False):
    """Damaged bytes of a file, or the JSON of something else."""
    text = "\n".join(map(json.dumps, original)) + "\n" if lines else json.dumps(original)
    other = (changed(original) | JSON).map(lambda value: json.dumps(value).encode())
    if lines:
        other = changed(original).map(lambda value: "\n".join(map(json.dumps, value)).encode())
    return damaged(text.encode()) | other | st.binary(max_size=30)


@pytest.fixture(autouse=True, scope="module")
def quiet():
    """No warning for each of many damaged files; tests of other files read what absl logs."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(level)


@fuzz(25, content=content_of(CONFIG))
def test_the_config_of_a_run(folder, content):
    (folder / "config.json").write_bytes(content)
    result_or_one_line(lambda: run_config(folder))
    result_or_one_line(lambda: record_run(folder, CONFIG, resuming=True))


@fuzz(20, content=content_of(MANIFEST))
def test_a_manifest(folder, content):
    step = folder / "3"
    if not step.is_dir():
        shutil.copytree(GOLDEN / "checkpoints" / "3", step)
    (step / "manifest.json").write_bytes(content)
    found = result_or_one_line(lambda: manifest.verify(step))
    assert found is None or json.loads(content)["step"] == 3, "whatever verifies is what was saved"


@fuzz(20, content=content_of(SIGNATURE))
def test_a_lock_that_nobody_holds(folder, content):
    (folder / lock.NAME).write_bytes(content)
    os.utime(folder / lock.NAME, (0, 0))  # silent for long, whichever host has signed it
    lock.holder(folder)
    with RunLock(folder):
        assert lock.holder(folder)


@fuzz(25, content=content_of(REPORTS, lines=True))
def test_the_log_of_metrics(folder, content):
    (folder / "metrics.jsonl").write_bytes(content)
    found = result_or_one_line(lambda: newest(folder))
    assert found is None or all(isinstance(value, int | float) for value in found.values())
    with MetricsWriter(folder, 5) as writer:
        assert math.isfinite(writer.hours_so_far())
        writer.write(6, {"loss": 1.0})
    assert json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 6


@fuzz(15, content=content_of(CATEGORIES))
def test_the_categories_of_a_detector(folder, content):
    (folder / "categories.json").write_bytes(content)
    found = result_or_one_line(lambda: read_categories(folder))
    assert found is None or len(found.ids) == len(found.names) == len(set(found.ids)) > 0
