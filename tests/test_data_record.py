"""A resumed run notices that its training set is another one."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs

from localmim_jax.data import fingerprint
from localmim_jax.data.folder import FolderSource
from localmim_jax.engine import loop
from localmim_jax.engine.data_record import record_data
from localmim_jax.errors import DataError, StorageError
from tests.test_check import JPEG, PNG, coco, masks
from tests.test_damaged_files import GARBAGE
from tests.test_loop import CONFIG, QUIET, SHORT
from tests.test_pipeline import Numbered

DATA = {"name": "folder:x[train]", "examples": 20, "fingerprint": "abc"}


def folder(root):
    for i in range(6):
        path = root / "ab"[i % 2] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(JPEG)
    return root


def of(root) -> str:
    return FolderSource(str(root)).fingerprint()


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "a" / "9.jpg").write_bytes(JPEG),
        lambda root: (root / "a" / "0.jpg").unlink(),
        lambda root: (root / "a" / "0.jpg").rename(root / "a" / "00.jpg"),
        lambda root: (root / "a").rename(root / "c"),
        lambda root: (root / "b" / "5.jpg").write_bytes(PNG),
        lambda root: (root / "a" / "0.jpg").rename(root / "b" / "0.jpg"),
    ],
)
def test_files_added_removed_renamed_or_replaced_are_another_folder(tmp_path, change):
    before = of(folder(tmp_path))
    assert of(tmp_path) == before
    (tmp_path / "a" / "notes.txt").write_text("is not read")
    assert of(tmp_path) == before
    change(tmp_path)
    assert of(tmp_path) != before


def test_the_place_of_a_folder_does_not_count(tmp_path):
    folder(tmp_path / "here").rename(tmp_path / "there")
    assert of(tmp_path / "there") == of(folder(tmp_path / "here"))


def test_of_many_files_a_sample_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "STATTED", 2)
    before = of(folder(tmp_path))
    (tmp_path / "b" / "5.jpg").write_bytes(PNG)  # the last is in the sample
    assert of(tmp_path) != before


def test_other_sources(tmp_path):
    assert Numbered(20).fingerprint() == Numbered(20).fingerprint() != Numbered(21).fingerprint()
    found = coco(tmp_path / "coco", JPEG)
    before = found.fingerprint()
    (tmp_path / "coco" / "val" / "1.jpg").write_bytes(PNG)
    assert found.fingerprint() != before
    assert coco(tmp_path / "other", JPEG).fingerprint() == before
    assert coco(tmp_path / "wider", JPEG, width=97).fingerprint() != before
    labeled = masks(tmp_path / "masks", JPEG, np.ones((64, 96), np.uint8))
    before = labeled.fingerprint()
    path = tmp_path / "masks" / "annotations" / "val" / "1.png"
    Image.fromarray(photographs.camera()[:64, :96] % 2).save(path)
    assert labeled.fingerprint() != before


def test_a_change_is_refused_or_accepted_by_a_key(tmp_path, caplog):
    task = dataclasses.replace(SHORT, data=lambda: DATA)
    grown = dataclasses.replace(SHORT, num_steps=15, data=lambda: {**DATA, "examples": 25, "fingerprint": "abd"})
    same = dataclasses.replace(SHORT, data=lambda: {**DATA, "fingerprint": "xyz"})
    record_data(tmp_path, task, {}, resuming=False)
    assert json.loads((tmp_path / "data.json").read_text()) == {**DATA, "num_steps": 12}
    record_data(tmp_path, task, {}, resuming=True)
    with pytest.raises(
        DataError, match=r"\(examples 20 -> 25; num_steps 12 -> 15\): .* --config\.data\.allow_change=true"
    ):
        record_data(tmp_path, grown, {"data": {"allow_change": False}}, resuming=True)
    with pytest.raises(DataError, match="as many examples, but other names or sizes of files"):
        record_data(tmp_path, same, {}, resuming=True)
    record_data(tmp_path, grown, {"data": {"allow_change": True}}, resuming=True)
    assert "accepted by data.allow_change" in caplog.text
    record_data(tmp_path, grown, {}, resuming=True)  # the new data are now the run's
    record_data(tmp_path, task, {}, resuming=False)  # before the first checkpoint anything may change


@pytest.mark.parametrize("garbage", [name for name in GARBAGE if name != "other keys"])
def test_a_damaged_record(tmp_path, garbage):
    (tmp_path / "data.json").write_bytes(GARBAGE[garbage])
    with pytest.raises(StorageError, match=r"data\.json is damaged"):
        record_data(tmp_path, dataclasses.replace(SHORT, data=lambda: DATA), {}, resuming=True)


def test_a_run_that_is_resumed_on_other_data_is_refused_before_a_step(tmp_path):
    task = dataclasses.replace(SHORT, data=lambda: DATA)
    loop.run(task, QUIET, tmp_path, CONFIG)
    other = dataclasses.replace(SHORT, data=lambda: {**DATA, "fingerprint": "abd"})
    with pytest.raises(DataError, match="has changed since it was recorded"):
        loop.run(other, QUIET, tmp_path, CONFIG)
    assert not (tmp_path / "run.lock").exists()
