"""A source written as a TFDS dataset in array_record files, which can be read at random."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from localmim_jax.data import sources, tfds_source
from localmim_jax.data.bad_examples import BadExamples
from localmim_jax.data.builders.copy import Copy
from localmim_jax.data.builders.reencode import Converter
from localmim_jax.data.config import available_cores
from localmim_jax.data.decode import DecodeError
from localmim_jax.data.splits import divided, splits_in, usual_name
from localmim_jax.data.walk import folders_of
from localmim_jax.errors import ConfigError, DataError

Example = dict[str, Any]  # "image": bytes or DecodeError, "file_name", optional "label" or "annotation"


@dataclasses.dataclass(frozen=True)
class Split:
    """One split to be copied.

    Attributes:
        name: of the source and the split, for messages.
        split: its name in the copy, for a folder one of `splits.usual_name`.
        count: of its examples.
        class_names: of labels or masks; () for none.
        examples: gives functions, each of which reads one example: they may be called in any thread.
        masks: whether examples have an "annotation" instead of a "label".
    """

    name: str
    split: str
    count: int
    class_names: tuple[str, ...]
    examples: Callable[[], Iterator[Callable[[], Example]]]
    masks: bool = False


def open_splits(name: str, splits: Sequence[str], data_dir: str) -> list[Split]:
    """The splits of a labeled or unlabeled source; all of them where none is named. Raises DataError."""
    return [_open(name, split, data_dir) for split in splits or _splits_of(name, data_dir)]


def write_copy(
    name: str,
    data_dir: str,
    save_as: str,
    convert: Converter,
    splits: Sequence[str] = (),
    max_bad_fraction: float = 0.01,
    open_splits: Callable[[str, Sequence[str], str], list[Split]] = open_splits,
) -> None:
    """Writes a source as a new TFDS dataset in `data_dir`, its images passed through `convert` on all cores.

    Undecodable images are left out and named in `<save_as>.<split>.bad_examples.txt` beside it.

    Raises:
        ConfigError: a bad or taken name.
        DataError: the source cannot be opened, or too many of its images cannot be decoded.
    """
    if not 0 <= max_bad_fraction <= 1:
        raise ConfigError(f"--max_bad_fraction={max_bad_fraction}: it must be from 0 to 1")
    if any(path.is_file() for path in (Path(data_dir), *Path(data_dir).parents)):
        raise ConfigError(f"--data_dir={data_dir} is, or lies in, a file: give a directory")
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", save_as):
        raise ConfigError(f"--save_as={save_as}: a name of lower-case letters, digits and single _ is needed")
    readers = open_splits(name, splits, data_dir)
    for reader in readers:
        if reader.class_names != readers[0].class_names:
            raise DataError(f"{reader.name} and {readers[0].name} do not have the same classes")
        if len(same := [other.name for other in readers if other.split == reader.split]) > 1:
            raise DataError(f"{' and '.join(same)} would all be split {reader.split!r}: choose with --splits")

    examples = {}
    for reader in readers:
        bad_list = Path(data_dir) / f"{save_as}.{reader.split}.bad_examples.txt"
        bad_list.unlink(missing_ok=True)
        bad = BadExamples(reader.name, reader.count, max_bad_fraction, bad_list)
        examples[reader.split] = functools.partial(_converted, reader, convert, bad)
    text, names, masks = f"A copy of {name}.", readers[0].class_names, readers[0].masks
    builder = Copy(save_as, examples, names, convert.channels, text, data_dir, masks)
    if tfds_source.is_prepared(builder):
        raise ConfigError(f"--save_as={save_as}: {builder.data_dir} exists; choose another name or remove it")
    with contextlib.redirect_stdout(None):  # TFDS speaks of a download of unknown size
        tfds_source.prepare(builder, data_dir)
    for split in examples:
        if masks:
            print(f"{save_as}[{split}]: {builder.info.splits[split].num_examples} images with masks")
            continue
        print(tfds_source.open_tfds(f"tfds:{save_as}", split, data_dir).describe())


def _converted(reader: Split, convert: Converter, bad: BadExamples) -> Iterator[Example]:
    for index, example in enumerate(_in_parallel(lambda read: _convert(read, convert), reader.examples())):
        if isinstance(example["image"], DecodeError):
            bad.add(index, example["file_name"], str(example["image"]))
        else:
            yield example


def random_access_split(source: Any, split: str, read: Callable[[int], Example], masks: bool = False) -> Split:
    """A split of a source whose examples have numbers, each read by `read`."""

    def read_or_tell(index: int) -> Example:
        example = {"file_name": source.key_of(index)}
        try:
            return {**example, **read(index)}
        except DecodeError as error:
            return {**example, "image": error}

    def examples() -> Iterator[Callable[[], Example]]:
        return (functools.partial(read_or_tell, index) for index in range(len(source)))

    return Split(source.name, usual_name(split), len(source), source.class_names, examples, masks)


def _open(name: str, split: str, data_dir: str) -> Split:
    if name.startswith("tfds:"):
        builder = tfds_source.find_builder(name, data_dir)
        if tfds_source.is_prepared(builder) and tfds_source.ARRAY_RECORD not in builder.info.available_file_formats():
            return _open_stream(builder, name, split)
    source = sources.open_source(name, split, data_dir)
    return random_access_split(source, split, source.__getitem__)


def _open_stream(builder: Any, name: str, split: str) -> Split:
    """What TFDS stores without random access, read from first to last with TensorFlow."""
    import tensorflow_datasets as tfds

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

    return Split(f"{name}[{split}]", split, builder.info.splits[split].num_examples, class_names, examples)


def _splits_of(name: str, data_dir: str) -> tuple[str, ...]:
    kind, _, rest = name.partition(":")
    if kind == "folder":
        folders = folders_of(Path(rest).expanduser())
        return tuple(splits_in(folders)) if divided(folders) else ("train",)
    if kind == "tfds":
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
