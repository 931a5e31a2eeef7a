"""IDX files of the MNIST family, made from scikit-learn's digits."""

import gzip
import struct

import numpy as np
import pytest
from sklearn.datasets import load_digits

from localmim_jax.data.idx import IdxSource, read_idx
from localmim_jax.data.sources import open_source
from localmim_jax.errors import DataError

DIGITS = load_digits()
IMAGES = np.round(DIGITS.images * (255 / 16)).astype(np.uint8)
LABELS = DIGITS.target.astype(np.uint8)


def encode(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(encode(IMAGES[:1500]))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(encode(LABELS[:1500]))
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(encode(IMAGES[1500:])))
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(encode(LABELS[1500:])))
    return tmp_path


@pytest.mark.parametrize(("split", "start", "count"), [("train", 0, 1500), ("test", 1500, 297), ("val", 1500, 297)])
def test_every_image_and_label_is_read(folder, split, start, count):
    source = open_source(f"idx:{folder}", split)
    assert (len(source), source.num_classes, source.class_names[-1]) == (count, 10, "9")
    for index in range(count):
        example = source[index]
        np.testing.assert_array_equal(example["image"], IMAGES[start + index][..., None])
        assert example["label"] == LABELS[start + index]


def test_prefixes_are_allowed_and_labels_are_optional(tmp_path):
    (tmp_path / "emnist-letters-test-images-idx3-ubyte").write_bytes(encode(IMAGES[:3]))
    source = IdxSource(str(tmp_path), "test")
    assert len(source) == 3
    assert not source.labeled
    assert set(source[0]) == {"image"}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not an IDX file"),
        (b"\x89PNG\r\n", "not an IDX file"),
        (b"\x00\x00\x0d\x01" + b"\0" * 8, "type 0x0d"),
        (b"\x00\x00\x08\x03\x00", "within its header"),
        (encode(IMAGES[:2])[:-1], "holds 127"),
        (b"\x00\x00\x08\x04" + b"\xff" * 16, "copy it again"),
        (gzip.compress(encode(IMAGES[:2]))[:-20], "copy it again"),
        (b"\x1f\x8bnonsense", "copy it again"),
    ],
    ids=["empty", "png", "float", "header", "short", "huge", "cut gzip", "no gzip"],
)
def test_damaged_files_are_named(tmp_path, data, says):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(data)
    with pytest.raises(DataError, match=says) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


def test_what_is_missing_is_named(folder, tmp_path):
    with pytest.raises(DataError, match="is not a folder"):
        IdxSource(str(tmp_path / "absent"))
    with pytest.raises(DataError, match="splits train and test"):
        IdxSource(str(folder), "unlabeled")
    (folder / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(DataError, match="no file of images"):
        IdxSource(str(folder), "test")
    (folder / "train-labels-idx1-ubyte").write_bytes(encode(LABELS[:7]))
    with pytest.raises(DataError, match="1500 images"):
        IdxSource(str(folder), "train")
    (folder / "other-train-images-idx3-ubyte").write_bytes(encode(IMAGES[:1]))
    with pytest.raises(DataError, match="keep one dataset in a folder"):
        IdxSource(str(folder), "train")
