"""Files of weights: what is written is read back, and whatever is broken or hostile is refused in one line."""

import hashlib
import io
import json
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest

from localmim_jax.convert import files
from localmim_jax.errors import ConfigError, DataError, StorageError

ARRAYS = {
    "a/kernel": np.arange(6, dtype=np.float32).reshape(2, 3).T,  # not contiguous
    "b": np.array(2.5, np.float64),
    "c": np.zeros((0, 3), np.float32),
    "index": np.arange(4, dtype=np.int64),
}


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_what_is_written_is_read(tmp_path, suffix):
    path = tmp_path / "new" / f"x{suffix}"
    files.write(path, ARRAYS, "info")
    arrays, extra = files.read(path)
    assert extra == {"info": "info"}
    assert list(arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_bfloat16_in_safetensors(tmp_path):
    path = tmp_path / "x.safetensors"
    files.write(path, {"a": np.ones(3, ml_dtypes.bfloat16)}, "{}")
    assert files.read(path)[0]["a"].dtype == ml_dtypes.bfloat16


def test_the_digest_of_a_file_is_logged(tmp_path, caplog):
    path = tmp_path / "x.npz"
    files.write(path, {"a": np.ones(3)}, "{}")
    with caplog.at_level("INFO", "absl"):
        files.read(path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() in caplog.text


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.npz"
    files.write(path, {"a": np.ones(3)}, "{}")
    before = path.read_bytes()
    for place in (path / "below.npz", tmp_path / "folder.npz"):
        (tmp_path / "folder.npz").mkdir(exist_ok=True)
        with pytest.raises(StorageError, match=f"{place} cannot be written"):
            files.write(place, {"a": np.zeros(3)}, "{}")
    assert path.read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["folder.npz", "x.npz"]


def npy(array, shape=None):
    """The bytes of an array, under a header that may state another shape."""
    buffer = io.BytesIO()
    header = np.lib.format.header_data_from_array_1_0(array)
    np.lib.format.write_array_header_1_0(buffer, header | {"shape": shape or array.shape})
    return buffer.getvalue() + array.tobytes()


def write_npz(path, members, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)


def write_safetensors(path, header, body=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + body)


class Payload:
    """Would leave a file behind if it were unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_an_npz_with_objects_is_refused_and_nothing_runs(tmp_path):
    path, trace = tmp_path / "x.npz", tmp_path / "trace"
    np.savez(path, a=np.array([Payload(trace)], dtype=object))
    with pytest.raises(DataError, match="holds Python objects, which could run code"):
        files.read(path)
    assert not trace.exists()


def test_a_truncated_file_is_refused(tmp_path):
    for suffix in (".npz", ".safetensors"):
        path = tmp_path / f"x{suffix}"
        files.write(path, ARRAYS, "info")
        content = path.read_bytes()
        for length in (0, 4, 8, 60, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:length])
            with pytest.raises(DataError) as error:
                files.read(path)
            assert f"{path} is damaged, or no {suffix[1:]} file" in str(error.value)
            assert "\n" not in str(error.value)


def test_a_damaged_npz_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    whole = npy(np.arange(100.0))
    write_npz(path, {"a": whole}, compression=zipfile.ZIP_DEFLATED)
    flipped = bytearray(path.read_bytes())
    flipped[60] ^= 255
    too_much = npy(np.arange(100.0), shape=(10**13,))
    for content in (too_much, whole.replace(b"(100,)", b"(10**", 1), b"<html>not found</html>", whole[:-8]):
        write_npz(path, {"a": content})
        with pytest.raises(DataError, match=r"x\.npz is damaged"):
            files.read(path)
    path.write_bytes(bytes(flipped))
    with pytest.raises(DataError, match=r"x\.npz is damaged"):
        files.read(path)


def test_a_bomb_is_refused_before_it_unpacks(tmp_path):
    path = tmp_path / "x.npz"
    write_npz(path, {"a": npy(np.zeros(2**20, np.float32))}, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**16
    with pytest.raises(DataError, match="unpacks to 4,194,432 bytes, more than the limit of 1,000,000"):
        files.read(path, max_bytes=10**6)


def test_a_file_over_the_limit_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    files.write(path, {"a": np.zeros(1000, np.float32)}, "{}")
    with pytest.raises(DataError, match="more than the limit of 1,000"):
        files.read(path, max_bytes=1000)


def test_a_huge_safetensors_header_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {}, length=2**40)
    with pytest.raises(DataError, match="states a header of 1,099,511,627,776 bytes"):
        files.read(path)


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, b"123"),
        ({"a": {"dtype": "F32", "shape": [1000], "data_offsets": [0, 16]}}, b"0" * 16),
        ({"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}}, b"0" * 16),
        ({"a": {"dtype": "X9", "shape": [4], "data_offsets": [0, 16]}}, b"0" * 16),
        (b"[" * 500, b""),
        (b"\xff\xfe", b""),
    ],
)
def test_a_damaged_safetensors_is_refused(tmp_path, header, body):
    path = tmp_path / "x.safetensors"
    write_safetensors(path, header, body)
    with pytest.raises(DataError, match="is damaged, or no safetensors file"):
        files.read(path)


def test_text_is_no_weight(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.array("words"))
    with pytest.raises(DataError, match="a is of type <U5; numbers are expected"):
        files.read(tmp_path / "x.npz")


def test_missing_and_unknown_files(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        files.read(tmp_path / "x.npz")
    (tmp_path / "x.zip").touch()
    with pytest.raises(DataError, match=r"unknown suffix; weights are read from \.npz, \.safetensors, \.pth"):
        files.read(tmp_path / "x.zip")
    with pytest.raises(ConfigError, match=r"unknown suffix; weights are written to \.npz"):
        files.write(tmp_path / "y.zip", {}, "{}")


def test_paths():
    assert files.local_path("~/x.npz").is_absolute()
    assert "~" not in str(files.local_path("~/x.npz"))
    for address in ("https://example.org/x.pth", "gs://bucket/x.npz"):
        with pytest.raises(ConfigError, match="fetch the file"):
            files.local_path(address)
