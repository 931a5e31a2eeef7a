"""Datasets that TFDS has prepared as array_record files, read at random without TensorFlow."""

import contextlib
import difflib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from google.protobuf.message import DecodeError as ProtoError
from tensorflow_datasets.proto import tf_example_pb2

from localmim_jax.data.decode import DecodeError
from localmim_jax.data.fingerprint import digest
from localmim_jax.data.source import Source
from localmim_jax.data.splits import find_split
from localmim_jax.data.storage import default_dir, locked
from localmim_jax.errors import DataError

ARRAY_RECORD = tfds.core.FileFormat.ARRAY_RECORD


class TfdsSource(Source):
    """A split of a prepared TFDS dataset with a feature "image", and labels where "label" is a ClassLabel.

    Images are handed on as they are stored, encoded; a feature Tensor of uint8 [h, w, c] gives arrays of any number of
    channels.

    Args:
        builder: of a dataset that is prepared as array_record.
        name: as in the config.
        split: as TFDS understands it, slices such as "train[:10%]" included; by any of its names, see `splits`.

    Attributes:
        encoded: whether images are stored as files rather than as arrays.

    Raises:
        DataError: no such split, or no usable "image".
    """

    def __init__(self, builder: tfds.core.DatasetBuilder, name: str, split: str):
        whole, bracket, part = split.partition("[")
        if len(chosen := find_split(list(builder.info.splits), whole)) == 1:
            split = f"{chosen[0]}{bracket}{part}"
        self.name = f"{name}[{split}]"
        features = builder.info.features
        fields = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
        image, label = fields.get("image"), fields.get("label")
        if image is None or not (is_encoded(image) or _is_picture(image)):
            found = ", ".join(fields) or "none"
            raise DataError(f"{name} in {builder.data_dir} has no feature 'image' of 8-bit pictures; features: {found}")
        self.encoded = is_encoded(image)
        parts = {key: (info.num_examples, tuple(info.shard_lengths)) for key, info in builder.info.splits.items()}
        self._fingerprint = digest(builder.info.full_name, split, sorted(parts.items()))
        if isinstance(label, tfds.features.ClassLabel) and label.num_classes:
            self.num_classes, self.class_names = label.num_classes, tuple(label.names)
        self._file_name = "file_name" in fields
        method = tfds.decode.DeserializeMethod
        try:
            self._records = builder.as_data_source(
                split, deserialize_method=method.RAW_BYTES if self.encoded else method.DESERIALIZE_AND_DECODE
            )
            self._length = len(self._records)
        except (ValueError, KeyError, AssertionError) as error:
            splits = ", ".join(builder.info.splits)
            reason = f" ({_one_line(error)})" if split.partition("[")[0] in builder.info.splits else ""
            raise DataError(
                f"{name} has no split {split!r}{reason}; it has {splits}, or slices as in train[:10%]"
            ) from error

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not self.encoded:
            record = self._read(index)
            image, label = record["image"], record.get("label")
        else:
            fields = self.fields(index)
            image, label = fields["image"].bytes_list.value[0], None
            if self.labeled:
                label = fields["label"].int64_list.value[0]
        return {"image": image} | ({"label": int(label)} if self.labeled else {})

    def fingerprint(self) -> str:
        return self._fingerprint

    def key_of(self, index: int) -> str:
        if self._file_name and self.encoded:
            with contextlib.suppress(DecodeError):
                return self.fields(index)["file_name"].bytes_list.value[0].decode()
        return str(index)

    def fields(self, index: int) -> Any:
        """The stored features of a record by name, where images are encoded. Raises DecodeError."""
        try:
            return tf_example_pb2.Example.FromString(self._read(index)).features.feature
        except ProtoError as error:
            raise DecodeError("the record is damaged") from error

    def _read(self, index: int) -> Any:
        try:
            return self._records[index]
        except (OSError, RuntimeError, ValueError) as error:
            raise DecodeError(f"the record cannot be read ({_one_line(error)})") from error


def open_tfds(name: str, split: str, data_dir: str) -> TfdsSource:
    """The source for "tfds:<name>", "photos" or "digits"; the last two are prepared on first use.

    Raises:
        DataError: unknown, not prepared, or prepared in a format without random access; the text has the command.
    """
    data_dir = default_dir(data_dir)
    if name in ("photos", "digits"):
        return TfdsSource(_own_builder(name, data_dir), name, split)
    builder = find_builder(name, data_dir)
    command = f"localmim prepare --name={name} --data_dir={data_dir}"
    if not is_prepared(builder):
        raise DataError(f"{name} is not prepared in {data_dir}: run {command}")
    formats = builder.info.available_file_formats()
    if ARRAY_RECORD not in formats:
        found = " and ".join(sorted(form.value for form in formats))
        copy = f"{builder.name}_array_record"
        raise DataError(
            f"{name} in {data_dir} is stored as {found}, which cannot be read at random: "
            f"run {command} --save_as={copy}, then use data.name=tfds:{copy}"
        )
    return TfdsSource(builder, name, split)


def find_builder(name: str, data_dir: str) -> tfds.core.DatasetBuilder:
    """TFDS's builder for "tfds:<name>", from its catalog or from what is in `data_dir`.

    Raises:
        DataError: neither knows the dataset.
    """
    bare = name.removeprefix("tfds:")
    try:
        with _quiet_tfds():
            return tfds.builder(bare, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        folder = Path(data_dir)
        here = [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
        near = difflib.get_close_matches(bare, [*tfds.list_builders(with_community_datasets=False), *here], n=1)
        hint = f"; did you mean tfds:{near[0]}?" if near else "; give data.data_dir if it is elsewhere"
        raise DataError(f"{name} is neither in TFDS's catalog nor in {data_dir}{hint}") from error
    except (ValueError, AssertionError, RuntimeError) as error:
        raise DataError(f"{name} cannot be opened in {data_dir}: {_one_line(error)}") from error


def is_prepared(builder: tfds.core.DatasetBuilder) -> bool:
    """Whether the dataset is in its directory, in whatever format."""
    with _quiet_tfds():
        return builder.is_prepared()


def prepare(builder: tfds.core.DatasetBuilder, data_dir: str, manual_dir: str = "") -> None:
    """Builds a dataset as array_record files in `data_dir`; one process at a time, the others wait for it.

    Raises:
        DataError: it cannot be built, or its directory cannot be written.
    """
    with locked(data_dir, builder.name):
        if is_prepared(builder):
            return
        config = tfds.download.DownloadConfig(manual_dir=manual_dir or None)
        try:
            builder.download_and_prepare(file_format=ARRAY_RECORD, download_config=config)
        except (AssertionError, OSError) as error:
            raise DataError(f"{builder.name} cannot be prepared in {data_dir}: {_one_line(error)}") from error


def _own_builder(name: str, data_dir: str) -> tfds.core.DatasetBuilder:
    if name == "photos":
        from localmim_jax.data.builders.photos import LocalmimPhotos as Builder
    else:
        from localmim_jax.data.builders.digits import LocalmimDigits as Builder
    with _quiet_tfds():
        builder = Builder(data_dir=data_dir, file_format=ARRAY_RECORD)
        if not builder.is_prepared():
            print(f"preparing {name} in {builder.data_dir}", file=sys.stderr)
            tfds.disable_progress_bar()
            with contextlib.redirect_stdout(None):
                prepare(builder, data_dir)
            tfds.enable_progress_bar()
            builder = Builder(data_dir=data_dir, file_format=ARRAY_RECORD)
        return builder


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def is_encoded(feature: Any) -> bool:
    """Whether a feature holds pictures as files. Float images, which TFDS hides in the bytes of PNGs, are none."""
    return isinstance(feature, tfds.features.Image) and np.dtype(feature.np_dtype) != np.float32


def _is_picture(feature: Any) -> bool:
    plain = isinstance(feature, tfds.features.Tensor)
    return plain and np.dtype(feature.np_dtype) == np.uint8 and len(feature.shape) == 3


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[None]:
    """Without TFDS's warnings about datasets that are not there yet."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
