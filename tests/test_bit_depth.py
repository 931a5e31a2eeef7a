"""`data.high_bit_depth` on folders of real photographs."""

import dataclasses
import io

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from localmim_jax.data.bit_depth import levels_of, measure
from localmim_jax.data.folder import FolderSource
from localmim_jax.data.given import GivenImages
from localmim_jax.data.levels import Levels
from localmim_jax.data.own import OwnSource
from localmim_jax.data.pipeline import eval_batches, train_batches
from localmim_jax.errors import ConfigError, DataError
from localmim_jax.tasks import inputs
from tests.deep_images import photograph, png, tiff
from tests.defaults import data_config
from tests.tiny_config import get_config


def folder(root, **files):
    root.mkdir(exist_ok=True)
    for name, data in files.items():
        (root / name.replace("_", ".")).write_bytes(data)
    return FolderSource(str(root))


@pytest.fixture(scope="module")
def camera(tmp_path_factory):
    """Five 12-bit photographs in 16-bit files, and one of 8 bits."""
    root = tmp_path_factory.mktemp("camera")
    values = photograph()
    Image.fromarray((values >> 4).astype(np.uint8)).save(root / "eight.jpg")
    files = {f"p{i}_png": png(values[i : i + 30]) for i in range(3)}
    return folder(root, **files, t0_tif=tiff(values[:, :, 0]), t1_tif=tiff(values[5:, :, 1]))


def test_dark_images_are_told_with_the_way_out(camera):
    found = measure("", camera)
    assert found.rule == ""
    assert "5 of 6 sampled images" in found.warnings[0]
    assert "come out at 0 to 16 of 255: set data.high_bit_depth=max, percentile" in found.warnings[0]
    assert "are 16-bit; data.high_bit_depth: the range of the type becomes 0 to 255" in found.notes[0]


def test_the_maximum_and_percentiles_of_a_sample(camera):
    assert measure("max", camera).rule == "0:4095"
    assert measure("max", camera) == measure("max", camera)
    assert not measure("max", camera).warnings
    black, white = map(float, measure("percentile", camera).rule.split(":"))
    assert 0 <= black < 60
    assert 3800 < white <= 4095
    assert measure("0:4095", camera).rule == "0:4095"
    assert not measure("0:4095", camera).warnings
    assert levels_of("max", camera) == levels_of("0:4095", camera) == Levels(0, 4095)
    assert levels_of("", camera) is None


def test_outliers_do_not_count_for_percentiles(tmp_path):
    values = photograph()[:, :, 0]
    values[0, :2] = 65535  # two hot pixels
    source = folder(tmp_path, a_tif=tiff(values))
    assert measure("max", source).rule == "0:65535"
    assert measure("max", source).warnings
    assert float(measure("percentile", source).rule.split(":")[1]) < 4096


def test_signed_and_floating_values(tmp_path):
    scan = photograph()[:, :, 0].astype(np.int16) - 1024  # Hounsfield units begin at -1024
    source = folder(tmp_path / "scan", a_tif=tiff(scan))
    assert measure("", source).warnings
    assert measure("max", source).rule == f"{scan.min()}:{scan.max()}"
    floats = folder(tmp_path / "floats", a_tif=tiff(photograph(8)[:, :, 0].astype(np.float32)))
    assert "come out at 255 to 255 of 255" in measure("", floats).warnings[0]
    assert measure("max", floats).rule == "0:255"
    unit = folder(tmp_path / "unit", a_tif=tiff(photograph()[:, :, 0].astype(np.float32) / 4095))
    assert not measure("", unit).warnings


def test_images_of_8_bits_need_no_rule(tmp_path):
    Image.fromarray((photograph() >> 4).astype(np.uint8)).save(tmp_path / "a.png")
    source = FolderSource(str(tmp_path))
    for rule in ("", "max", "percentile"):
        assert measure(rule, source) == measure("", source)
        assert not measure(rule, source).notes


def test_types_that_two_values_cannot_suit_are_refused(tmp_path):
    values = photograph()[:, :, 0]
    source = folder(tmp_path, a_tif=tiff(values), b_tif=tiff(values.astype(np.float32) / 4095))
    with pytest.raises(DataError, match=r"has 16-bit and floating-point images, and data.high_bit_depth=max takes"):
        measure("max", source)
    assert measure("", source).notes


def test_a_damaged_or_constant_image_does_not_stop_the_measuring(tmp_path):
    source = folder(tmp_path, a_tif=tiff(np.full((8, 8), 500, np.uint16)), b_tif=b"II*\0junk")
    assert measure("max", source).rule == "0:500"
    zero = folder(tmp_path / "zero", a_tif=tiff(np.zeros((8, 8), np.float32)))
    assert levels_of("max", zero).white > 0
    empty = folder(tmp_path / "empty", a_tif=tiff(np.full((8, 8), np.nan, np.float32)))
    assert measure("max", empty).rule == ""


def test_training_and_evaluation_read_by_the_rule(camera):
    data = data_config(f"folder:{camera.root}", (24, 32), 6, high_bit_depth="max", num_threads=1)
    by_number = dataclasses.replace(data, high_bit_depth="0:4095")
    dark = dataclasses.replace(data, high_bit_depth="")
    for batches in (lambda config: train_batches(config, camera, 0, 1), lambda config: eval_batches(config, camera, 6)):
        one, two, three = (next(iter(batches(config))) for config in (data, by_number, dark))
        np.testing.assert_array_equal(one["image"], two["image"])
        assert "levels" not in one
        kept = one["id"] > 0  # index 0 is the JPEG
        np.testing.assert_array_equal(one["image"][~kept], three["image"][~kept])
        assert one["image"][kept].mean() > 90
        assert three["image"][kept].mean() < 9


def test_a_run_records_the_values_that_its_rule_gave(camera):
    config = get_config()
    config.data.update({"name": f"folder:{camera.root}", "high_bit_depth": "max"})
    train = inputs.TrainInput(config)
    assert config.data.high_bit_depth == train.config.high_bit_depth == "0:4095"
    assert inputs.levels(config) == Levels(0, 4095)
    del config.data.high_bit_depth  # a run of an earlier version
    assert inputs.TrainInput(config).config.high_bit_depth == ""
    assert inputs.levels(config) is None


@pytest.fixture(scope="module")
def labeled(tmp_path_factory):
    """Photographs in two classes, of a 12-bit camera as the run's, and with all 16 bits as another's."""
    roots = {}
    for bits in (12, 16):
        roots[bits] = tmp_path_factory.mktemp(f"bits{bits}")
        values = photograph(bits)
        for split, kind, rows in (("train", "a", 0), ("train", "b", 4), ("val", "a", 6), ("val", "b", 9)):
            place = roots[bits] / split / kind
            place.mkdir(parents=True, exist_ok=True)
            (place / "p.png").write_bytes(png(values[rows : rows + 30]))
    return roots


def labeled_splits(root, rule=None):
    config = get_config()
    config.data.update({"name": "folder:elsewhere", "high_bit_depth": "0:4095", "num_threads": 1})  # of the run
    section = {"name": f"folder:{root}", "train_split": "train", "test_split": "val", "resize": 0, "max_train": 0}
    splits = inputs.LabeledSplits(config, ConfigDict(section | {"high_bit_depth": rule}))
    return np.concatenate([batch["image"][batch["valid"]] for batch in splits()])


def test_another_dataset_has_the_levels_of_the_run_with_a_warning_or_its_own(labeled, caplog):
    camera = labeled_splits(labeled[12])
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    cut = labeled_splits(labeled[16])
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warned) == 2  # both splits, by name
    assert f"folder:{labeled[16]}[train] are 16-bit, and with 0:4095 as black and white" in warned[0]
    assert f"folder:{labeled[16]}[val]" in warned[1]
    assert "set eval.knn.high_bit_depth=max, percentile" in warned[0]
    caplog.clear()
    own = labeled_splits(labeled[16], "max")
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert cut.mean() > 200
    np.testing.assert_allclose(own.astype(int), camera.astype(int), atol=1)  # the same picture


def pictures():
    """12-bit photographs as a Python program has them: gray in Pillow's modes, and colors from an open file."""
    values = photograph()
    gray = values.max(axis=2)
    return [
        np.repeat((gray >> 4).astype(np.uint8)[:, :, None], 3, axis=2),
        Image.fromarray(gray),
        Image.fromarray(gray.astype(np.int32)),
        Image.open(io.BytesIO(tiff(gray))),
        Image.open(io.BytesIO(png(np.repeat(gray[:, :, None], 3, axis=2)))),
    ]


def test_images_of_python_follow_the_rule():
    assert [image.mode for image in pictures()[1:]] == ["I;16", "I", "I;16", "RGB"]
    data = data_config("python:list", (24, 32), 5, high_bit_depth="max", num_threads=1, flip=False, crop_scale=(1, 1))
    data = dataclasses.replace(data, crop_ratio=(1.5, 1.5))
    source = OwnSource(pictures(), "dataset[train]", 3)
    assert measure("max", source).rule == "0:4095"
    assert "4 of 5 sampled images of dataset[train] are 16-bit" in measure("", source).warnings[0]
    for of_python in (source, GivenImages(pictures(), 3)):
        for batches in (lambda: train_batches(data, of_python, 0, 1), lambda: eval_batches(data, of_python, 5)):
            images = next(iter(batches()))["image"].astype(int)
            assert abs(images - images[:1]).max() <= 3  # bicubic overshoots
            assert images.mean() > 90
    dark = next(iter(eval_batches(dataclasses.replace(data, high_bit_depth=""), source, 5)))["image"]
    assert dark[0].mean() > 90
    assert dark[1:].mean() < 10


def test_an_unknown_rule_is_refused():
    with pytest.raises(ConfigError, match=r"data\.high_bit_depth is 'auto'"):
        data_config("digits", (8, 8), 1, high_bit_depth="auto")
