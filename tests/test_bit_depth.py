"""`data.high_bit_depth` on folders of real photographs."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from localmim_jax.data.bit_depth import levels_of, measure
from localmim_jax.data.config import DataConfig
from localmim_jax.data.folder import FolderSource
from localmim_jax.data.levels import Levels
from localmim_jax.data.pipeline import eval_batches, train_batches
from localmim_jax.errors import ConfigError, DataError
from localmim_jax.tasks import inputs
from tests.deep_images import photograph, png, tiff
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
    data = DataConfig(f"folder:{camera.root}", (24, 32), 6, high_bit_depth="max", num_threads=1)
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


def test_an_unknown_rule_is_refused():
    with pytest.raises(ConfigError, match=r"data\.high_bit_depth is 'auto'"):
        DataConfig("digits", (8, 8), 1, high_bit_depth="auto")
