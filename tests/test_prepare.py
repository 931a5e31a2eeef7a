"""The command that prepares datasets, run as people run it, and what it makes read back through the real sources."""

import io
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from localmim_jax.cli import prepare, program
from localmim_jax.data.builders.reencode import Converter
from localmim_jax.data.pipeline import train_batches
from localmim_jax.data.sources import open_source
from localmim_jax.errors import ConfigError, DataError
from tests.defaults import data_config

RNG = np.random.default_rng(0)


def jpeg(height, width, **options):
    file = io.BytesIO()
    ramp = np.add.outer(np.arange(height), np.arange(width))[..., None] % 200 + np.array([0, 20, 40])
    Image.fromarray(ramp.astype(np.uint8)).save(file, "JPEG", quality=90, **options)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    """Two splits of two classes of five JPEGs, the first of them damaged."""
    root = tmp_path / "images"
    for split in ("train", "val"):
        for label, name in enumerate(("cat", "dog")):
            (root / split / name).mkdir(parents=True)
            for i in range(5):
                (root / split / name / f"{i}.jpg").write_bytes(jpeg(60 + 10 * i, 90 + label))
    (root / "train/cat/0.jpg").write_bytes(jpeg(60, 90)[:-100])
    return root


def run(*arguments):
    options = program.parse(arguments, prepare.define_flags)
    prepare.main(options)


@pytest.mark.parametrize(("encoding", "form"), [("jpeg", "JPEG"), ("raw", "BMP")])
def test_a_smaller_copy_of_a_folder(folder, tmp_path, capfd, encoding, form):
    data_dir = str(tmp_path / "tfds")
    run(
        f"--name=folder:{folder}",
        "--save_as=small",
        "--short_side=64",
        f"--encoding={encoding}",
        f"--data_dir={data_dir}",
        "--max_bad_fraction=0.1",
    )
    out = capfd.readouterr().out
    assert out.startswith("tfds:small[train]: 9 images of 2 classes, 60 x 64 to 71 x 91 pixels (9 sampled)")
    assert "use it with --config.data.name=tfds:small" in out
    original = {split: open_source(f"folder:{folder}", split) for split in ("train", "val")}
    for split in ("train", "val"):
        copy = open_source("tfds:small", split, data_dir)
        assert copy.class_names == ("cat", "dog")
        names = [copy.key_of(i) for i in range(len(copy))]
        expected = [original[split].key_of(i) for i in range(10)]
        assert names == (expected[1:] if split == "train" else expected)
        for index, name in enumerate(names):
            example, before = copy[index], original[split][expected.index(name)]
            image = Image.open(io.BytesIO(example["image"]))
            whole = Image.open(io.BytesIO(before["image"]))
            assert example["label"] == before["label"]
            short = min(whole.size)
            if short > 64:
                size = tuple(64 * side // short for side in whole.size)
                exact = whole.resize(size, Image.Resampling.BICUBIC)
                assert image.format == form
                assert np.abs(np.asarray(image).astype(int) - np.asarray(exact)).mean() < (
                    3 if form == "JPEG" else 1e-9
                )
            elif form == "JPEG":
                assert example["image"] == before["image"]
    (line,) = (tmp_path / "tfds/small.train.bad_examples.txt").read_text().splitlines()
    assert line.startswith("0\tcat/0.jpg\timage file is truncated")
    config = data_config("tfds:small", (32, 48), 4)
    assert next(train_batches(config, open_source("tfds:small", "train", data_dir)))["image"].shape == (4, 32, 48, 3)


def test_splits_of_any_name_are_found_by_the_names_of_the_recipes(folder, tmp_path):
    (folder / "train").rename(folder / "Train")
    (folder / "val").rename(folder / "valid")
    data_dir = str(tmp_path / "tfds")
    prepare.copy(f"folder:{folder}", data_dir, "mine", Converter(), max_bad_fraction=0.1)
    assert list(tfds.builder("mine", data_dir=data_dir).info.splits) == ["train", "val"]
    for split, count in (("train", 9), ("val", 10), ("validation", 10), ("train[:4]", 4), ("validation[3:]", 7)):
        assert len(open_source("tfds:mine", split, data_dir)) == count
    with pytest.raises(DataError, match=r"tfds:mine has no split 'test'; it has train, val"):
        open_source("tfds:mine", "test", data_dir)
    (folder / "Train").rename(folder / "dev")
    with pytest.raises(DataError, match=r"\[valid\] and .*\[dev\] would all be split 'val': choose with --splits"):
        prepare.copy(f"folder:{folder}", data_dir, "twice", Converter())


def test_too_many_bad_images_leave_no_copy(folder, tmp_path):
    data_dir = str(tmp_path / "tfds")
    with pytest.raises(
        DataError, match=r"1 of the 10 images of .*\[train\] cannot be decoded.*allows 0.*small\.train\.bad"
    ):
        prepare.copy(f"folder:{folder}", data_dir, "small", Converter(), max_bad_fraction=0.0)
    with pytest.raises(DataError, match="tfds:small is neither in TFDS's catalog nor in"):
        open_source("tfds:small", "train", data_dir)
    (folder / "train/cat/0.jpg").write_bytes(jpeg(60, 90))
    prepare.copy(f"folder:{folder}", data_dir, "small", Converter(), max_bad_fraction=0.0)
    assert len(open_source("tfds:small", "train", data_dir)) == 10


def test_a_name_that_is_taken_or_no_name(folder, tmp_path):
    prepare.copy(f"folder:{folder}", str(tmp_path), "mine", Converter(), ("val",))
    with pytest.raises(ConfigError, match=r"--save_as=mine: .*/mine/1\.0\.0 exists"):
        prepare.copy(f"folder:{folder}", str(tmp_path), "mine", Converter(), ("val",))
    for name in ("Mine", "my-set", "2x", "a__b"):
        with pytest.raises(ConfigError, match=f"--save_as={name}: a name of lower-case"):
            prepare.copy(f"folder:{folder}", str(tmp_path), name, Converter())


def test_nothing_is_begun_that_cannot_be_written_or_makes_no_sense(folder, tmp_path):
    (tmp_path / "file").write_text("")
    for place in ("file", "file/below"):
        with pytest.raises(ConfigError, match=f"--data_dir=.*{place} is, or lies in, a file: give a directory"):
            prepare.copy(f"folder:{folder}", str(tmp_path / place), "mine", Converter())
    with pytest.raises(ConfigError, match="--max_bad_fraction=2: it must be from 0 to 1"):
        prepare.copy(f"folder:{folder}", str(tmp_path), "mine", Converter(), max_bad_fraction=2)


def test_splits_must_have_the_same_classes(folder, tmp_path):
    (folder / "val/zebra").mkdir()
    (folder / "val/zebra/1.jpg").write_bytes(jpeg(9, 9))
    with pytest.raises(DataError, match=r"\[val\] and .*\[train\] do not have the same classes"):
        prepare.copy(f"folder:{folder}", str(tmp_path), "mine", Converter())


def test_what_tfds_stores_without_random_access_is_converted_byte_for_byte(tmp_path):
    images = [jpeg(20, 30 + i) for i in range(4)]

    class Records(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        name = "records"

        def _info(self):
            features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=["a", "b"])}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for index, image in enumerate(images):
                yield index, {"image": image, "label": index % 2}

    Records(data_dir=tmp_path, file_format="tfrecord").download_and_prepare()
    with pytest.raises(DataError, match=r"stored as tfrecord.* --save_as=records_array_record"):
        open_source("tfds:records", "train", str(tmp_path))
    with pytest.raises(DataError, match="tfds:records has no split 'test'; it has train"):
        run("--name=tfds:records", f"--data_dir={tmp_path}", "--save_as=records_array_record", "--splits=test")
    run("--name=tfds:records", f"--data_dir={tmp_path}", "--save_as=records_array_record")
    copy = open_source("tfds:records_array_record", "train", str(tmp_path))
    assert {copy[i]["image"]: copy[i]["label"] for i in range(4)} == {image: i % 2 for i, image in enumerate(images)}
    assert copy.class_names == ("a", "b")


def test_the_command_ends_in_one_line_and_the_right_status():
    command = [sys.executable, "-m", "localmim_jax", "prepare", "--name=digits"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("localmim prepare: digits needs no preparation")
    assert result.stderr.count("\n") == 1


def test_what_tfds_cannot_download_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"imagenet2012 cannot be prepared in .*ILSVRC2012_img_train\.tar"):
        run("--name=tfds:imagenet2012", f"--data_dir={tmp_path}")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no --name given"),
        (["--name=digits"], "digits needs no preparation; give --save_as"),
        (["--nam=digits"], "--nam: no such flag; did you mean --name?"),
        (["--name=folder:/nowhere", "--save_as=x"], "/nowhere does not exist"),
    ],
)
def test_bad_command_lines(arguments, words):
    with pytest.raises((ConfigError, DataError), match=words):
        run(*arguments)
