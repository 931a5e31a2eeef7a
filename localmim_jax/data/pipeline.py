"""Batches that are a pure function of (seed, step): nothing but the step has to be saved to resume.

Training walks an endless line of positions. Position p is example `order(epoch)[p mod n]` of epoch `p div n`, each
epoch in a new order, and its augmentation is drawn from (seed, p). The global batch of step s is positions s * B to
(s + 1) * B - 1, and host h of H reads the h-th of H equal parts of it; so every example comes once an epoch, whatever
the batch size, the number of hosts, and the step at which a run was resumed.
"""

import dataclasses
import itertools
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grain
import numpy as np
from absl import flags

from localmim_jax.data.augment import EvalTransform, Finished, TrainTransform
from localmim_jax.data.bad_examples import BadExamples
from localmim_jax.data.config import DataConfig, available_cores, host_batch
from localmim_jax.data.decode import DecodeError
from localmim_jax.data.sources import Source
from localmim_jax.errors import DataError
from localmim_jax.faults import crash_at

Transform = Callable[[dict[str, Any], np.random.Generator], Mapping[str, np.ndarray]]
Batch = dict[str, Any]  # numpy arrays; of one example also numpy scalars

ORDER, AUGMENT, EVALUATE = range(3)  # what a random stream is for


def train_batches(
    config: DataConfig,
    source: Source,
    first_step: int = 0,
    num_steps: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
    *,
    transform: Transform | None = None,
    bad_list: str | Path | None = None,
) -> Iterator[Batch]:
    """This host's training batches of steps `first_step` to `num_steps` - 1 (None: without end).

    Args:
        config: order, batch size, augmentation, threads.
        source: what is read.
        first_step: 0, or the number of steps already done.
        num_steps: of the whole run.
        process_index: which host this is.
        process_count: how many there are.
        transform: picklable, (example, rng) -> dict of arrays of equal shapes; the default crops and flips as `config`
            says. It may raise DecodeError, upon which another example takes the place.
        bad_list: file in which undecodable examples are named; host h > 0 appends ".h" to its name.

    Yields:
        "image" uint8 [b, h, w, c], "id" int64 [b] (indices in the source), "label" int32 [b] where labeled.

    Raises:
        ConfigError: the batch does not divide among the hosts.
        DataError: more undecodable images than `max_bad_fraction` allows, or a label out of range.
    """
    batch = host_batch(config.batch_size, process_count)
    if transform is None:
        transform = Finished() if source.finished else TrainTransform.of(config)
    if bad_list is not None and process_index:
        bad_list = f"{bad_list}.{process_index}"
    bad = BadExamples(source.name, len(source), config.max_bad_fraction, Path(bad_list) if bad_list else None)
    positions = grain.MapDataset.range(len(source)).shuffle(seed=stream_seed(config.seed, ORDER)).repeat()
    examples = positions.random_map(_ReadExample(source, transform, bad), seed=stream_seed(config.seed, AUGMENT))
    last_step = num_steps if num_steps is not None else sys.maxsize // config.batch_size
    part = HostPart(examples, config.batch_size, first_step, last_step, process_index, process_count)
    return iterate(part, batch, config)


def eval_batches(
    config: DataConfig,
    source: Source,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    *,
    transform: Transform | None = None,
    max_examples: int = 0,
) -> Iterator[Batch]:
    """Every example of the source exactly once over all hosts, in order, and as many batches on every host.

    Args:
        config: threads and, for the default transform, image size and channels.
        source: what is read.
        batch_size: global.
        process_index: which host this is.
        process_count: how many there are.
        transform: as in `train_batches`; the default is `EvalTransform` with its usual proportion.
        max_examples: that many examples, evenly spaced, instead of all; 0 is all.

    Yields:
        As `train_batches`, and "valid" bool [b]: False for padding, whose id is -1 and whose other values are zero.

    Raises:
        ConfigError: the batch does not divide among the hosts.
        DataError: an image cannot be decoded (an evaluation leaves nothing out), or a label is out of range.
    """
    batch = host_batch(batch_size, process_count)
    if transform is None:
        transform = Finished() if source.finished else EvalTransform(config.image_size, config.channels)
    count = min(max_examples or len(source), len(source))
    steps = -(-count // batch_size)
    read = _ReadForEvaluation(_ReadExample(source, transform, None), count)
    examples = grain.MapDataset.range(steps * batch_size).random_map(read, seed=stream_seed(config.seed, EVALUATE))
    return iterate(HostPart(examples, batch_size, 0, steps, process_index, process_count), batch, config)


class HostPart(grain.MapDataset):
    """This host's elements of the global batches of steps `first_step` to `last_step` - 1, one after the other."""

    def __init__(
        self,
        parent: grain.MapDataset,
        batch_size: int,
        first_step: int,
        last_step: int,
        process_index: int,
        process_count: int,
    ):
        super().__init__(parent)
        self._batch_size, self._first_step, self._last_step = batch_size, first_step, last_step
        self._part = host_batch(batch_size, process_count)
        self._start = process_index * self._part

    def __len__(self) -> int:
        return max(0, self._last_step - self._first_step) * self._part

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        step, offset = divmod(index, self._part)
        return self._parent[(self._first_step + step) * self._batch_size + self._start + offset]


@dataclasses.dataclass(frozen=True)
class _ReadExample:
    """index, rng -> a finished example. Where it cannot be decoded, the next index that can takes its place."""

    source: Source
    transform: Transform
    bad: BadExamples | None  # None: nothing may be bad

    def __call__(self, index: int, rng: np.random.Generator) -> Batch:
        count = len(self.source)
        for candidate in itertools.chain(range(index, count), range(index)):
            crash_at("in_decode")
            try:
                example = self.source[candidate]
                self._check_label(candidate, example)
                return {**self.transform(example, rng), "id": np.int64(candidate)}
            except DecodeError as error:
                name = self.source.name_of(candidate)
                if self.bad is None:
                    raise DataError(f"{name}: {error}; evaluation needs every image: repair or remove it") from error
                self.bad.add(candidate, name, str(error))
        raise DataError(f"not one of the {count} images of {self.source.name} can be decoded")

    def _check_label(self, index: int, example: dict[str, Any]) -> None:
        label = example.get("label")
        if label is not None and not 0 <= label < self.source.num_classes:
            name, classes = self.source.name_of(index), self.source.num_classes
            raise DataError(f"{name} has label {label}; {self.source.name} has {classes} classes, 0 to {classes - 1}")


class _ReadForEvaluation:
    """position, rng -> the example at that place of the evaluation, or padding after the last."""

    def __init__(self, read: _ReadExample, count: int):
        self._read, self._count = read, count
        self._padding: Batch | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> tuple[_ReadExample, int]:
        return self._read, self._count

    def __setstate__(self, state: tuple[_ReadExample, int]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def __call__(self, position: int, rng: np.random.Generator) -> Batch:
        if position >= self._count:
            return self._pad(rng)
        index = position * len(self._read.source) // self._count
        return {**self._read(index, rng), "valid": np.True_}

    def _pad(self, rng: np.random.Generator) -> Batch:
        with self._lock:
            if self._padding is None:
                zeros = {key: np.zeros_like(value) for key, value in self._read(0, rng).items()}
                self._padding = {**zeros, "id": np.int64(-1), "valid": np.False_}
        return self._padding


def iterate(part: HostPart, batch: int, config: DataConfig) -> Iterator[Batch]:
    """Batches of so many elements each of this host's part, made ahead by threads or processes as the config says."""
    if config.num_workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # grain hands absl's flags to its workers
        # Whole batches per worker, so that their order and content do not depend on how many workers there are.
        options = grain.ReadOptions(num_threads=max(1, config.num_threads), prefetch_buffer_size=1)
        dataset = part.batch(batch, drop_remainder=True).to_iter_dataset(options)
        ahead = -(-config.prefetch_batches // config.num_workers)
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(config.num_workers, ahead))
    else:
        threads = config.num_threads or available_cores()
        options = grain.ReadOptions(threads, prefetch_buffer_size=max(threads, config.prefetch_batches * batch))
        dataset = part.to_iter_dataset(options).batch(batch, drop_remainder=True)

    def batches() -> Iterator[Batch]:
        iterator = iter(dataset)
        try:
            for made in iterator:
                # Workers hand over shared memory, which lives as long as anybody looks at it.
                yield {key: np.array(value) for key, value in made.items()} if config.num_workers else made
        finally:
            iterator.close()

    return batches()


def stream_seed(seed: int, purpose: int) -> int:
    """A seed for one purpose, far from those of others and of neighboring seeds."""
    return int(np.random.SeedSequence((seed, purpose)).generate_state(1)[0])
