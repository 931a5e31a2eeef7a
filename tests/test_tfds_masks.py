import numpy as np
import pytest

from localmim_jax.cli.prepare import copy
from localmim_jax.data.builders.reencode import Converter
from localmim_jax.errors import ConfigError, DataError
from localmim_jax.segmentation.sources import MaskFolder, open_masks
from tests.test_segmentation_sources import CLASSES, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("ade")
    write(root)
    return write(root, 2, "validation")


def test_a_copy_of_a_folder_reads_as_the_folder_does(folder, tmp_path, capsys):
    copy(f"masks:{folder}", str(tmp_path), "small_ade", Converter())
    assert "small_ade[train]: 4 images with masks" in capsys.readouterr().out
    for split, count in (("training", 4), ("validation", 2)):
        source = MaskFolder(str(folder), split)
        copied = open_masks("tfds:small_ade", split, str(tmp_path))
        assert (len(copied), copied.class_names) == (count, CLASSES)
        for i in range(count):
            assert copied.size_of(i) == source.size_of(i)
            assert copied[i]["image"] == source[i]["image"]
            np.testing.assert_array_equal(copied[i]["mask"], source[i]["mask"])
    assert open_masks("tfds:small_ade", "training[:50%]", str(tmp_path)).key_of(1) == "1.png"


def test_what_cannot_be_is_refused(folder, tmp_path):
    with pytest.raises(ConfigError, match="does not shrink masks"):
        copy(f"masks:{folder}", str(tmp_path), "smaller", Converter(short_side=8))
    with pytest.raises(DataError, match="no encoded images with masks"):
        open_masks("tfds:localmim_digits", "train", digits(tmp_path))


def digits(data_dir):
    from localmim_jax.data.tfds_source import open_tfds

    open_tfds("digits", "train", str(data_dir))
    return str(data_dir)
