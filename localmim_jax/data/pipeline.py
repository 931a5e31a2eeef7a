"""Batches that are a pure function of (seed, step): nothing but the step has to be saved to resume.

A plan says which example each position of the run reads; the augmentation of position p is drawn from (seed, p). The
global batch of step s is positions s * B to (s + 1) * B - 1, and host h of H reads the h-th of H equal parts of it. So
every example is read once an epoch, whatever the batch size, the number of hosts, and the step at which a run was
resumed. Training and evaluation differ by their plans and by what becomes of an unreadable example.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np
from absl import flags

from localmim_jax.data.augment import EvalTransform, Passthrough, TrainTransform
from localmim_jax.data.bad_examples import BadExamples
from localmim_jax.data.bit_depth import levels_of
from localmim_jax.data.config import DataConfig, available_cores
from localmim_jax.data.plan import AUGMENT, EVALUATE, EvaluationPlan, Group, TrainingPlan, one_group, stream_seed
from localmim_jax.data.read import Batch, Reader, Transform
from localmim_jax.data.shard import WHOLE, Shard
from localmim_jax.data.source import Source
from localmim_jax.data.workers import in_processes


def train_batches(
    config: DataConfig,
    source: Source,
    first_step: int = 0,
    num_steps: int | None = None,
    shard: Shard = WHOLE,
    *,
    transform: Transform | None = None,
    groups: Sequence[Group] | None = None,
    bad_list: str | Path | None = None,
) -> Iterator[Batch]:
    """This host's training batches of steps `first_step` to `num_steps` - 1 (None: without end).

    Args:
        config: order, batch size, augmentation, threads.
        source: what is read.
        first_step: 0, or the number of steps already done.
        num_steps: of the whole run.
        shard: this host's part of each batch.
        transform: picklable, (example, rng) -> dict of arrays of equal shapes, or (example, size, rng) where groups
            have sizes; the default crops and flips as `config` says. It may raise DecodeError, upon which another
            example takes the place.
        groups: one or two, each with every example in one of them; None for one of all examples.
        bad_list: file in which undecodable examples are named; host h > 0 appends ".h" to its name.

    Yields:
        What the transform gives, stacked, and "id" int64 [b], indices in the source. By default "image" uint8
        [b, h, w, c], and "label" int32 [b] where labeled. At a step all hosts read the same group.

    Raises:
        ConfigError: the batch does not divide among the hosts.
        DataError: more undecodable images than `max_bad_fraction` allows, or a label out of range.
    """
    if transform is None:
        transform = Passthrough() if source.passthrough else TrainTransform.of(config)
    if groups is None:
        groups = one_group(len(source))
    bad = BadExamples(source.name, len(source), config.max_bad_fraction, shard.own(bad_list) if bad_list else None)
    plan = TrainingPlan(groups, config.batch_size, config.seed)
    last_step = num_steps if num_steps is not None else sys.maxsize // config.batch_size
    examples = grain.MapDataset.source(plan).random_map(
        Reader(source, groups, transform, bad, levels_of(config.high_bit_depth, source)),
        seed=stream_seed(config.seed, AUGMENT),
    )
    return _batches(ShardOfSteps(examples, config.batch_size, first_step, last_step, shard), config)


def eval_batches(
    config: DataConfig,
    source: Source,
    batch_size: int,
    shard: Shard = WHOLE,
    *,
    transform: Transform | None = None,
    groups: Sequence[Group] | None = None,
    skip_bad: bool = False,
) -> Iterator[Batch]:
    """Every example of the groups exactly once over all hosts, in order, and as many batches on every host.

    Args:
        config: threads and, for the default transform, image size and channels.
        source: what is read.
        batch_size: global.
        shard: this host's part of each batch.
        transform: as in `train_batches`; the default is `EvalTransform` with its usual proportion.
        groups: any number, read one after the other; None for one of all examples.
        skip_bad: an undecodable image becomes padding instead of an error.

    Yields:
        As `train_batches`, and "valid" bool [b]: False for padding, whose id is -1 and whose other values are zero.

    Raises:
        ConfigError: the batch does not divide among the hosts.
        DataError: an image cannot be decoded (an evaluation leaves nothing out), or a label is out of range.
    """
    if transform is None:
        transform = Passthrough() if source.passthrough else EvalTransform.of(config)
    if groups is None:
        groups = one_group(len(source))
    plan = EvaluationPlan(groups, batch_size)
    examples = grain.MapDataset.source(plan).random_map(
        Reader(source, groups, transform, None, levels_of(config.high_bit_depth, source), skip_bad),
        seed=stream_seed(config.seed, EVALUATE),
    )
    return _batches(ShardOfSteps(examples, batch_size, 0, len(plan) // batch_size, shard), config)


class ShardOfSteps(grain.MapDataset):
    """A shard's elements of the global batches of steps `first_step` to `last_step` - 1, one after the other.

    Attributes:
        batch_size: this shard's elements of each step.

    Raises:
        ConfigError: the global batch does not divide among the hosts.
    """

    def __init__(self, parent: grain.MapDataset, global_batch: int, first_step: int, last_step: int, shard: Shard):
        super().__init__(parent)
        self._global_batch, self._first_step, self._last_step = global_batch, first_step, last_step
        self.batch_size = shard.examples_of(global_batch)
        self._start = shard.index * self.batch_size

    def __len__(self) -> int:
        return max(0, self._last_step - self._first_step) * self.batch_size

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        step, offset = divmod(index, self.batch_size)
        return self._parent[(self._first_step + step) * self._global_batch + self._start + offset]


def _batches(part: ShardOfSteps, config: DataConfig) -> Iterator[Batch]:
    """The shard's batches, made ahead by threads or processes as the config says."""
    batch = part.batch_size
    if config.num_workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # grain hands absl's flags to its workers
        # Whole batches per worker, so that their order and content do not depend on how many workers there are.
        options = grain.ReadOptions(num_threads=max(1, config.num_threads), prefetch_buffer_size=1)
        dataset = part.batch(batch, drop_remainder=True).to_iter_dataset(options)
        made = in_processes(dataset, config.num_workers, -(-config.prefetch_batches // config.num_workers))
        # Workers hand over shared memory, which lives as long as anybody looks at it.
        return ({key: np.array(value) for key, value in batch.items()} for batch in made)
    threads = config.num_threads or available_cores()
    options = grain.ReadOptions(threads, prefetch_buffer_size=max(threads, config.prefetch_batches * batch))
    return _in_threads(part.to_iter_dataset(options).batch(batch, drop_remainder=True))


def _in_threads(dataset: grain.IterDataset) -> Iterator[Batch]:
    iterator = iter(dataset)
    try:
        yield from iterator
    finally:
        iterator.close()
