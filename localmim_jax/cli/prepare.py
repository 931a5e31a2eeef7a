"""Prepare a dataset for training: through TFDS, or as a copy that is cheaper to read.

    python -m localmim_jax.prepare --name=tfds:imagenet2012 --manual_dir=DIR_OF_THE_TAR_FILES
    python -m localmim_jax.prepare --name=tfds:imagenet2012 --save_as=imagenet2012_array_record
    python -m localmim_jax.prepare --name=folder:/data/photos --save_as=photos_320 --short_side=320
    python -m localmim_jax.prepare --name=tfds:imagenet2012 --save_as=imagenet_256_raw --short_side=256 --encoding=raw
    python -m localmim_jax.prepare --name=masks:/data/ADEChallengeData2016 --save_as=ade20k

The first writes array_record files, which can be read at random. With --save_as, the examples of any source become a
TFDS dataset of that name in data_dir, to be used as data.name=tfds:<save_as>; --short_side makes larger images smaller
(bicubic), and --encoding=raw stores pixels, several times as large as JPEGs but nearly free to decode.
Masks go with their images, as they are.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from PIL import Image

from localmim_jax.cli import program
from localmim_jax.data import sources
from localmim_jax.data.augment import resize
from localmim_jax.data.bad_examples import BadExamples
from localmim_jax.data.config import available_cores
from localmim_jax.data.decode import DecodeError, decode
from localmim_jax.data.folder import SPLITS
from localmim_jax.errors import ConfigError, DataError
from localmim_jax.segmentation.sources import open_masks

ENCODINGS = ("keep", "jpeg", "raw")

Example = dict[str, Any]


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("name", None, "what to prepare, as data.name in a config", flag_values=values)
    flags.DEFINE_string("data_dir", "", "where TFDS keeps its datasets; empty: its own default", flag_values=values)
    flags.DEFINE_string("manual_dir", "", "where files that TFDS cannot download lie", flag_values=values)
    flags.DEFINE_string("save_as", "", "name of a new dataset, in snake_case", flag_values=values)
    flags.DEFINE_list("splits", [], "splits to copy; empty: all", flag_values=values)
    flags.DEFINE_integer("short_side", 0, "shrink images to this many pixels; 0: leave their size", flag_values=values)
    flags.DEFINE_string("encoding", "", "keep, jpeg or raw; empty: jpeg with --short_side", flag_values=values)
    flags.DEFINE_integer("quality", 95, "of JPEG, 1 to 100", flag_values=values)
    flags.DEFINE_integer("channels", 3, "1 gray, 3 RGB", flag_values=values)
    flags.DEFINE_float("max_bad_fraction", 0.01, "share of undecodable images that is left out", flag_values=values)


def main(options: flags.FlagValues) -> None:
    if not options.name:
        raise ConfigError("no --name given; for example --name=tfds:imagenet2012")
    from localmim_jax.data import tfds_source

    data_dir = tfds_source.default_dir(options.data_dir)
    if options.save_as:
        copy(
            options.name,
            data_dir,
            options.save_as,
            Converter(options.short_side, options.encoding, options.quality, options.channels),
            tuple(options.splits),
            options.max_bad_fraction,
        )
        print(f"use it with --config.data.name=tfds:{options.save_as} --config.data.data_dir={data_dir}")
    elif options.name.startswith("tfds:"):
        program.hide_accelerators_from_tensorflow()
        builder = tfds_source.find_builder(options.name, data_dir)
        tfds_source.prepare(builder, data_dir, options.manual_dir)
        for split in builder.info.splits:
            print(tfds_source.open_tfds(options.name, split, data_dir).describe())
    else:
        raise ConfigError(f"{options.name} needs no preparation; give --save_as=NAME to make a smaller copy of it")


class Converter:
    """bytes of an image -> bytes of the smaller or differently encoded one.

    Args:
        short_side: pixels; larger images are shrunk to it, 0 leaves the size.
        encoding: "keep" (the bytes as they are), "jpeg" (only what was shrunk is encoded again), "raw" (BMP, that is
            pixels), or "" for what `short_side` calls for.
        quality: of JPEG.
        channels: 1 or 3.

    Raises:
        ConfigError: a value out of range, or "keep" with a `short_side`.
    """

    def __init__(self, short_side: int = 0, encoding: str = "", quality: int = 95, channels: int = 3):
        self.short_side, self.quality, self.channels = short_side, quality, channels
        self.encoding = encoding or ("jpeg" if short_side else "keep")
        if self.encoding not in ENCODINGS:
            raise ConfigError(f"--encoding={encoding}: it must be one of {', '.join(ENCODINGS)}")
        if self.encoding == "keep" and short_side:
            raise ConfigError("--encoding=keep cannot shrink images: choose jpeg or raw, or leave out --short_side")
        if short_side < 0 or not 1 <= quality <= 100 or channels not in (1, 3):
            raise ConfigError(
                f"--short_side must be at least 0, --quality 1 to 100, --channels 1 or 3, and they are {short_side}, "
                f"{quality} and {channels}"
            )

    def __call__(self, data: bytes | np.ndarray) -> bytes:
        """Raises DecodeError for what cannot be decoded, also where the bytes would be kept."""
        image: Any = decode(data, self.channels)  # with 1 or 3 channels always Pillow's
        short = min(image.size)
        shrink = 0 < self.short_side < short
        if shrink:
            width, height = (self.short_side * side // short for side in image.size)
            image = resize(image, (height, width))
        if isinstance(data, bytes) and self.encoding != "raw" and not shrink:
            return data
        return self._encode(image)

    def _encode(self, image: Image.Image) -> bytes:
        file = io.BytesIO()
        if self.encoding == "raw":
            image.save(file, "BMP")
        elif self.encoding == "jpeg":
            image.save(file, "JPEG", quality=self.quality)
        else:
            image.save(file, "PNG")
        return file.getvalue()


def copy(
    name: str,
    data_dir: str,
    save_as: str,
    convert: Converter,
    splits: tuple[str, ...] = (),
    max_bad_fraction: float = 0.01,
) -> None:
    """Writes a source as a new TFDS dataset in `data_dir`, its images passed through `convert` on all cores.

    Undecodable images are left out and named in `<save_as>.<split>.bad_examples.txt` beside it.

    Raises:
        ConfigError: a bad or taken name.
        DataError: the source cannot be opened, or too many of its images cannot be decoded.
    """
    from localmim_jax.data import tfds_source
    from localmim_jax.data.builders.copy import Copy

    with_masks = name.startswith("masks:")
    if with_masks and convert.short_side:
        raise ConfigError("--short_side does not shrink masks, so their images must keep their size: leave it out")

    if not 0 <= max_bad_fraction <= 1:
        raise ConfigError(f"--max_bad_fraction={max_bad_fraction}: it must be from 0 to 1")
    if any(path.is_file() for path in (Path(data_dir), *Path(data_dir).parents)):
        raise ConfigError(f"--data_dir={data_dir} is, or lies in, a file: give a directory")
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", save_as):
        raise ConfigError(f"--save_as={save_as}: a name of lower-case letters, digits and single _ is needed")
    readers = [_open(name, split, data_dir) for split in splits or _splits_of(name, data_dir)]
    for reader in readers:
        if reader.class_names != readers[0].class_names:
            raise DataError(f"{reader.name} and {readers[0].name} do not have the same classes")

    def converted(reader: _Reader, bad: BadExamples) -> Iterator[Example]:
        for index, example in enumerate(_in_parallel(lambda read: _convert(read, convert), reader.examples())):
            if isinstance(example["image"], DecodeError):
                bad.add(index, example["file_name"], str(example["image"]))
            else:
                yield example

    examples = {}
    for reader in readers:
        bad_list = Path(data_dir) / f"{save_as}.{reader.split}.bad_examples.txt"
        bad_list.unlink(missing_ok=True)
        bad = BadExamples(reader.name, reader.count, max_bad_fraction, bad_list)
        examples[reader.split] = functools.partial(converted, reader, bad)
    text, names = f"A copy of {name}.", readers[0].class_names
    builder = Copy(save_as, examples, names, convert.channels, text, data_dir, with_masks)
    if tfds_source.is_prepared(builder):
        raise ConfigError(f"--save_as={save_as}: {builder.data_dir} exists; choose another name or remove it")
    with contextlib.redirect_stdout(None):  # TFDS speaks of a download of unknown size
        tfds_source.prepare(builder, data_dir)
    for split in examples:
        if with_masks:
            print(f"{save_as}[{split}]: {builder.info.splits[split].num_examples} images with masks")
            continue
        print(tfds_source.open_tfds(f"tfds:{save_as}", split, data_dir).describe())


@dataclasses.dataclass(frozen=True)
class _Reader:
    """One split to be copied. `examples` gives functions, each of which reads one: they may be called in any thread."""

    name: str
    split: str
    count: int
    class_names: tuple[str, ...]
    examples: Callable[[], Iterator[Callable[[], Example]]]


def _open(name: str, split: str, data_dir: str) -> _Reader:
    if name.startswith("tfds:"):
        from localmim_jax.data import tfds_source

        builder = tfds_source.find_builder(name, data_dir)
        if tfds_source.is_prepared(builder) and tfds_source.ARRAY_RECORD not in builder.info.available_file_formats():
            return _open_stream(builder, name, split)
    with_masks = name.startswith("masks:")
    source: Any = (open_masks if with_masks else sources.open_source)(name, split, data_dir)

    def read(index: int) -> Example:
        file_name = source.key_of(index)
        try:
            if with_masks:
                return {"file_name": file_name, **dict(zip(("image", "annotation"), source.read(index), strict=True))}
            return {"file_name": file_name, **source[index]}
        except DecodeError as error:
            return {"file_name": file_name, "image": error}

    def examples() -> Iterator[Callable[[], Example]]:
        return (functools.partial(read, index) for index in range(len(source)))

    return _Reader(source.name, split, len(source), source.class_names, examples)


def _open_stream(builder: Any, name: str, split: str) -> _Reader:
    """What TFDS stores without random access, read from first to last with TensorFlow."""
    import tensorflow_datasets as tfds

    program.hide_accelerators_from_tensorflow()
    if split not in builder.info.splits:
        raise DataError(f"{name} has no split {split!r}; it has {', '.join(builder.info.splits)}")
    label = builder.info.features.get_tensor_info().get("label") and builder.info.features["label"]
    class_names = tuple(label.names) if isinstance(label, tfds.features.ClassLabel) else ()

    def examples() -> Iterator[Callable[[], Example]]:
        records = builder.as_dataset(split, decoders={"image": tfds.decode.SkipDecoding()}, shuffle_files=False)
        for index, record in enumerate(tfds.as_numpy(records)):
            example = {"image": record["image"], "file_name": record.get("file_name", f"{index}")}
            if class_names:
                example["label"] = int(record["label"])
            yield functools.partial(dict, example)

    return _Reader(f"{name}[{split}]", split, builder.info.splits[split].num_examples, class_names, examples)


def _splits_of(name: str, data_dir: str) -> tuple[str, ...]:
    kind, _, rest = name.partition(":")
    if kind == "masks":
        folder = Path(rest).expanduser() / "images"
        return tuple(sorted(path.name for path in folder.glob("*/"))) or ("training",)
    if kind == "folder":
        return tuple(split for split in SPLITS if (Path(rest).expanduser() / split).is_dir()) or ("train",)
    if kind == "tfds":
        from localmim_jax.data import tfds_source

        return tuple(tfds_source.find_builder(name, data_dir).info.splits) or ("train",)
    return "train", "test"


def _convert(read: Callable[[], Example], convert: Converter) -> Example:
    example = read()
    if isinstance(example["image"], DecodeError):
        return example
    try:
        return {**example, "image": convert(example["image"])}
    except DecodeError as error:
        return {**example, "image": error}


def _in_parallel(function: Callable[[Any], Any], items: Iterator[Any]) -> Iterator[Any]:
    """`map` on all cores, in order, never far ahead of whoever takes the results."""
    cores = available_cores()
    with concurrent.futures.ThreadPoolExecutor(cores) as pool:
        waiting: collections.deque[concurrent.futures.Future] = collections.deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 4 * cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
