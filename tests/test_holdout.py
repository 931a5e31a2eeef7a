"""`data.val_fraction`: the same part of a folder everywhere, whatever else is in it."""

import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image

from localmim_jax.data.folder import FolderSource
from localmim_jax.data.holdout import held_out
from localmim_jax.errors import ConfigError, DataError
from localmim_jax.tasks import inputs
from tests.defaults import data_config


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    """Three classes of 40, 10 and 1 images."""
    root = tmp_path_factory.mktemp("flowers")
    for name, count in (("aster", 40), ("rosé", 10), ("tulip", 1)):
        (root / name).mkdir()
        for i in range(count):
            Image.new("RGB", (4, 4), (i, 0, 0)).save(root / name / f"{i}.png")
    return root


def names(source):
    return [source.key_of(i) for i in range(len(source))]


def parts(root, fraction=0.25):
    return [names(FolderSource(str(root), split, fraction)) for split in ("train", "val")]


def test_every_image_is_in_one_part_and_every_class_in_both(flowers):
    train, val = parts(flowers)
    assert sorted(train + val) == names(FolderSource(str(flowers)))
    assert not set(train) & set(val)
    counts = {name: sum(key.startswith(name) for key in val) for name in ("aster", "rosé", "tulip")}
    assert counts["aster"] in range(5, 16)
    assert counts["rosé"] in range(1, 6)
    assert counts["tulip"] == 0
    source = FolderSource(str(flowers), "validation", 0.25)
    assert source.class_names == ("aster", "rosé", "tulip")
    assert source.notes == (f"{flowers}: classes with one image, which is not held out: tulip",)
    assert [source[i]["label"] for i in range(len(source))] == [0] * counts["aster"] + [1] * counts["rosé"]


def test_these_are_the_parts_on_every_machine():
    """Pinned: another hash would move images from training to validation in the middle of somebody's project."""
    keys = [f"{name}/{i}.jpg" for name in "ab" for i in range(12)]
    labels = np.repeat([0, 1], 12)
    assert [keys[i] for i in np.flatnonzero(held_out(keys, labels, 0.25))] == [
        "a/1.jpg",
        "a/5.jpg",
        "a/8.jpg",
        "b/4.jpg",
        "b/5.jpg",
        "b/6.jpg",
        "b/8.jpg",
        "b/11.jpg",
    ]


def test_other_files_change_nothing(flowers, tmp_path):
    before = parts(flowers)
    copy = shutil.copytree(flowers, tmp_path / "copy")
    for i in range(40, 60):
        shutil.copy(copy / "aster" / "0.png", copy / "aster" / f"{i}.png")
    (copy / "dahlia").mkdir()
    shutil.copy(copy / "aster" / "0.png", copy / "dahlia" / "1.png")
    (copy / "tulip" / "0.png").unlink()
    new = {f"aster/{i}.png" for i in range(40, 60)} | {"dahlia/1.png", "tulip/0.png"}
    for old, now in zip(before, parts(copy), strict=True):
        assert set(old) - new == set(now) - new


def test_the_form_of_unicode_changes_nothing(flowers, tmp_path):
    copy = shutil.copytree(flowers, tmp_path / "copy")
    (copy / "rosé").rename(copy / unicodedata.normalize("NFD", "rosé"))
    for one, other in zip(parts(flowers), parts(copy), strict=True):
        assert set(one) == {unicodedata.normalize("NFC", name) for name in other}


def test_a_larger_fraction_holds_out_more_and_keeps_what_it_had(flowers):
    small, large = (set(parts(flowers, fraction)[1]) for fraction in (0.1, 0.5))
    assert small < large
    for fraction in (1e-9, 0.999999):
        train, val = parts(flowers, fraction)
        assert {name.split("/")[0] for name in train} == {"aster", "rosé", "tulip"}
        assert {name.split("/")[0] for name in val} == {"aster", "rosé"}


@pytest.mark.parametrize("count", [200, 2000])
def test_classes_are_divided_in_proportion(count):
    keys = [f"{label}/{i}.png" for label in range(5) for i in range(count)]
    chosen = held_out(keys, np.repeat(np.arange(5), count), 0.2).reshape(5, count)
    assert (abs(chosen.mean(axis=1) - 0.2) < 4 * (0.16 / count) ** 0.5).all()


def test_without_labels_and_below_a_train_folder(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    for i in range(20):
        Image.new("L", (2, 2)).save(tmp_path / "train" / f"{i}.png")
    Image.new("L", (2, 2)).save(tmp_path / "test" / "9.png")
    train, val = parts(tmp_path)
    assert len(train) + len(val) == 20
    assert 0 < len(val) < 12
    assert names(FolderSource(str(tmp_path), "test", 0.25)) == ["9.png"]
    assert parts(tmp_path / "train") == [train, val]


def test_two_validation_parts_and_too_few_images_are_refused(flowers, tmp_path):
    for split in ("train", "Valid"):
        shutil.copytree(flowers / "tulip", tmp_path / split / "tulip")
    for split in ("train", "validation"):
        with pytest.raises(DataError, match=r"has Valid/, and data.val_fraction=0.5: set that to 0 to use it"):
            FolderSource(str(tmp_path), split, 0.5)
    with pytest.raises(DataError, match=r"has 1 image: too few to hold out data\.val_fraction"):
        FolderSource(str(flowers / "tulip"), "val", 0.5)
    with pytest.raises(DataError, match=r"found no split folders; .* or set data\.val_fraction to hold out a part"):
        FolderSource(str(flowers), "val")
    with pytest.raises(DataError, match="found no split folders; make it, or give the name of another folder"):
        FolderSource(str(flowers), "test", 0.5)


def test_the_config_reaches_every_reader_of_the_folder(flowers):
    data = data_config(f"folder:{flowers}", (4, 4), 1, val_fraction=0.25)
    train, val = parts(flowers)
    assert names(inputs.open_split(data)) == train
    assert names(inputs.open_split(data, split="validation")) == val
    assert names(inputs.open_split(data, f"folder:{flowers}/../{flowers.name}/", "val")) == val
    other = inputs.open_split(data, f"folder:{flowers}/aster", "train")
    assert len(other) == 40  # another folder is not divided
    for changes, reason in (
        ({"val_fraction": 1.0}, "at least 0 and below 1"),
        ({"name": "tfds:x", "val_fraction": 0.1}, r"divides a folder, .* as in train\[10%:\]"),
        ({"name": "digits", "val_fraction": 0.1}, "divides a folder"),
    ):
        with pytest.raises(ConfigError, match=reason):
            data_config(**{"name": f"folder:{flowers}", "image_size": (4, 4), "batch_size": 1} | changes)
