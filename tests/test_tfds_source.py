"""Datasets really built by TFDS, and the ways in which a TFDS directory can be wrong."""

import io
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.datasets import load_digits

from localmim_jax.data.builders.copy import Copy
from localmim_jax.data.builders.photos import TILE, photographs
from localmim_jax.data.decode import DecodeError, decode, to_array
from localmim_jax.data.pipeline import train_batches
from localmim_jax.data.sources import open_source
from localmim_jax.errors import DataError
from tests.defaults import data_config

DIGITS = load_digits()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("tfds"))


class Made(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Three examples of any features, in any format."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, name, features, example, **options):
        self.name, self._features, self._example = name, features, example
        super().__init__(**options)

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(self._features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for index in range(3):
            yield index, self._example(index)


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def build(data_dir, name, features, example, form="array_record"):
    Made(name, features, example, data_dir=data_dir, file_format=form).download_and_prepare()


def test_digits_are_scikit_learns(data_dir):
    train, test = (open_source("digits", split, data_dir) for split in ("train", "test"))
    assert (len(train), len(test), train.num_classes) == (1500, 297, 10)
    seen = []
    for source in (train, test):
        for index in range(len(source)):
            example = source[index]
            image = to_array(decode(example["image"], 1))
            assert image.shape == (8, 8, 1)
            seen.append((example["label"], *(image.reshape(-1) / 255 * 16).round().astype(int)))
    expected = [(label, *pixels.astype(int)) for label, pixels in zip(DIGITS.target, DIGITS.data, strict=True)]
    assert sorted(seen) == sorted(expected)
    assert sorted(seen[:1500]) == sorted(expected[:1500])


def test_photos_are_tiles_of_photographs_and_the_splits_share_none(data_dir):
    train, test = (open_source("photos", split, data_dir) for split in ("train", "test"))
    assert len(train) >= 1000
    assert len(test) >= 100
    assert train.class_names == test.class_names
    labels = [{source.class_names[source[i]["label"]] for i in range(len(source))} for source in (train, test)]
    assert labels == [set(photographs(split)) for split in ("train", "test")]
    assert not labels[0] & labels[1]
    for index in range(0, len(train), 100):
        assert to_array(decode(train[index]["image"], 3)).shape == (TILE, TILE, 3)
        name = train.class_names[train[index]["label"]]
        assert re.fullmatch(rf"photos\[train\]/{name}_\d\d_\d\d\.jpg", train.name_of(index))


def test_photo_tiles_overlap_and_reach_every_edge(data_dir):
    source = open_source("photos", "test", data_dir)
    flower = photographs("test")["flower"]
    tiles = {source.key_of(i): np.asarray(decode(source[i]["image"], 3)).astype(int) for i in range(len(source))}
    first, last = tiles["flower_00_00.jpg"], tiles["flower_07_07.jpg"]
    pixels = np.asarray(flower).astype(int)
    assert np.abs(first - pixels[:TILE, :TILE]).mean() < 3
    assert np.abs(last - pixels[-TILE:, -TILE:]).mean() < 3
    step = round((flower.width - TILE) / 7)
    assert np.abs(first[:, step:] - tiles["flower_00_01.jpg"][:, : TILE - step]).mean() < 4


def test_what_is_prepared_is_not_prepared_again(data_dir):
    open_source("digits", "train", data_dir)
    files = sorted(Path(data_dir, "localmim_digits").rglob("*.array_record*"))
    times = [os.stat(file).st_mtime_ns for file in files]
    open_source("digits", "train", data_dir)
    assert [os.stat(file).st_mtime_ns for file in files] == times
    assert len(files) == 2


def test_reading_and_preparing_need_no_tensorflow(tmp_path):
    program = f"""
import sys
from tests.defaults import data_config
from localmim_jax.data.pipeline import train_batches
from localmim_jax.data.sources import open_source
source = open_source("digits", "train", {str(tmp_path)!r})
batch = next(train_batches(data_config("digits", (8, 8), 4, channels=1), source))
print(batch["image"].shape, "tensorflow" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "(4, 8, 8, 1) False\n"
    assert result.stderr.startswith("preparing digits in ")
    assert result.stderr.count("\n") == 1


def test_pipeline_over_tfds(data_dir):
    config = data_config("photos", (96, 128), 8, channels=1)
    batch = next(train_batches(config, pickle.loads(pickle.dumps(open_source("photos", "train", data_dir)))))
    assert batch["image"].shape == (8, 96, 128, 1)


def test_slices_and_unknown_splits(data_dir):
    whole = open_source("photos", "train", data_dir)
    part = open_source("photos", "train[10%:20%]", data_dir)
    assert len(part) == round(len(whole) / 10)
    assert part[0] == whole[len(whole) // 10]
    for split in ("validation", "train[10%", "train[:x]", "train[5:5]"):
        with pytest.raises(DataError, match=r"photos has no split '.*; it has train, test, or slices") as caught:
            open_source("photos", split, data_dir)
        assert split in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_dataset_in_the_catalog_that_is_not_prepared(tmp_path):
    with pytest.raises(DataError) as caught:
        open_source("tfds:imagenet2012", "train", str(tmp_path))
    assert str(caught.value) == (
        f"tfds:imagenet2012 is not prepared in {tmp_path}: "
        f"run localmim prepare --name=tfds:imagenet2012 --data_dir={tmp_path}"
    )


def test_a_dataset_that_nobody_knows(tmp_path):
    with pytest.raises(
        DataError, match=f"neither in TFDS's catalog nor in {tmp_path}; did you mean tfds:imagenet2012?"
    ):
        open_source("tfds:imagnet2012", "train", str(tmp_path))
    with pytest.raises(DataError, match=r"give data\.data_dir if it is elsewhere"):
        open_source("tfds:qqqqqqqqqqqq", "train", str(tmp_path / "nowhere"))


def test_another_format_gets_the_command_that_converts_it(tmp_path):
    features = {"image": tfds.features.Image(shape=(4, 4, 1))}
    build(tmp_path, "records", features, lambda i: {"image": png(np.full((4, 4), i, np.uint8))}, "tfrecord")
    with pytest.raises(
        DataError, match=r"stored as tfrecord.*--name=tfds:records --data_dir=.* --save_as=records_array"
    ):
        open_source("tfds:records", "train", str(tmp_path))


def test_arrays_of_many_channels(tmp_path):
    features = {
        "image": tfds.features.Tensor(shape=(6, 5, 7), dtype=np.uint8),
        "label": tfds.features.ClassLabel(names=["low", "high"]),
    }
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 6, 5, 7), dtype=np.uint8)
    build(tmp_path, "spectra", features, lambda i: {"image": images[i], "label": i % 2})
    source = open_source("tfds:spectra", "train", str(tmp_path))
    assert source.class_names == ("low", "high")
    stored = sorted(source[i]["image"].tobytes() for i in range(3))
    assert stored == sorted(image.tobytes() for image in images)
    config = data_config("tfds:spectra", (4, 4), 2, channels=7)
    assert next(train_batches(config, source))["image"].shape == (2, 4, 4, 7)


@pytest.mark.parametrize(
    ("feature", "value"),
    [
        ({"picture": tfds.features.Image(shape=(4, 4, 1))}, png(np.zeros((4, 4), np.uint8))),
        ({"image": tfds.features.Tensor(shape=(4,), dtype=np.float32)}, np.zeros(4, np.float32)),
    ],
)
def test_a_dataset_without_pictures(tmp_path, feature, value):
    (name,) = feature
    build(tmp_path, "other", feature, lambda i: {name: value})
    with pytest.raises(DataError, match=f"has no feature 'image' of 8-bit pictures; features: {name}"):
        open_source("tfds:other", "train", str(tmp_path))


def damage_one_record(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x55
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "bad"),
    [
        (damage_one_record, 1),
        (lambda file: os.truncate(file, file.stat().st_size // 2), 256),
        (lambda file: file.unlink(), 256),
    ],
)
def test_damaged_files_are_bad_examples(data_dir, tmp_path, damage, bad):
    open_source("photos", "test", data_dir)
    shutil.copytree(Path(data_dir, "localmim_photos"), tmp_path / "localmim_photos")
    (file,) = (tmp_path / "localmim_photos").rglob("*test.array_record*")
    damage(file)
    source = open_source("photos", "test", str(tmp_path))
    failures = {}
    for index in range(len(source)):
        try:
            source[index]
        except DecodeError as error:
            failures[index] = str(error)
    assert len(failures) == bad
    for index, reason in failures.items():
        assert "the record cannot be read" in reason
        assert source.name_of(index) == f"photos[test]/{index}"


def test_a_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/tfds cannot be written .* choose another data\.data_dir"):
        open_source("digits", "train", str(tmp_path / "file" / "tfds"))


def test_copies_keep_order_names_and_labels(tmp_path):
    examples = [{"image": png(np.full((2, 3), i, np.uint8)), "file_name": f"{i}.png", "label": i % 2} for i in range(5)]
    builder = Copy("mine", {"train": lambda: iter(examples)}, ("even", "odd"), 1, "five", str(tmp_path))
    builder.download_and_prepare(file_format="array_record")
    source = open_source("tfds:mine", "train", str(tmp_path))
    assert [{"file_name": source.key_of(i), **source[i]} for i in range(5)] == examples
    assert source.class_names == ("even", "odd")
