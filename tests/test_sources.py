import pickle

import numpy as np
import pytest
from PIL import Image

from localmim_jax.data.sources import FakeSource, open_source
from localmim_jax.errors import DataError


def test_fake_images_depend_on_index_and_split_only():
    train, test = (FakeSource(50, (6, 8), 5, split) for split in ("train", "test"))
    image = train[7]["image"]
    assert image.shape == (6, 8, 5)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(train))[7]["image"], image)
    assert (image != train[8]["image"]).any()
    assert (image != test[7]["image"]).any()
    assert train[1234 % 50]["label"] == 34
    assert 100 < np.mean([train[i]["image"].mean() for i in range(50)]) < 155


def test_fake_is_opened_as_configured():
    source = open_source("fake", "test", image_size=(4, 6), channels=2, fake_examples=11)
    assert len(source) == 11
    assert source[10]["image"].shape == (4, 6, 2)
    assert source.passthrough
    assert (
        "fake[test]: 11 images of 1,000 classes, 4 x 6 pixels (11 sampled), such as fake[test]/0" in source.describe()
    )


def test_unknown_names():
    with pytest.raises(DataError, match="no dataset 'cifar'; it must be \"tfds:<name>\""):
        open_source("cifar")


def test_notes_go_to_the_log_once(tmp_path, caplog):
    Image.new("RGB", (4, 4)).save(tmp_path / "1.png")
    (tmp_path / "2.psd").write_bytes(b"not read")
    for _ in range(2):
        assert len(open_source(f"folder:{tmp_path}")) == 1
    assert [entry.getMessage() for entry in caplog.records] == [f"{tmp_path}: not read: 1 .psd"]
