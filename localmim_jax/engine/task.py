"""The interface between the engine and a task.

Pre-training, fine-tuning, linear probing, segmentation and detection are each a `Task`. All run in `engine.loop`.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import jax
import numpy as np
from flax import nnx

from localmim_jax.errors import ConfigError
from localmim_jax.params import Tree

Batch = Mapping[str, np.ndarray]  # this host's part; every array's first axis is the example axis


class Metric(Protocol):
    """Accumulates one evaluation on the host, in numpy, over every example exactly once."""

    def update(self, outputs: Any, batch: Batch) -> None:
        """Adds the outputs of `predict` for `batch`. Both are global numpy arrays without padding."""

    def compute(self) -> dict[str, Any]:
        """Scalars (float), images (uint8 [n, h, w, 3]) or texts (str) by name."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One evaluation, run at intervals by the engine.

    Attributes:
        name: prefix of its values, as in "knn/accuracy".
        batches: () -> this host's batches, none with more examples than the first. Every host yields the same number of
            batches. An optional bool "valid" [b] is False for padding. Over all hosts, each example occurs once. The
            engine pads further where a batch does not divide evenly over the devices.
        predict: (model, batch) -> outputs, traced under jit with the global batch (without its "id"); a pytree whose
            leaves have the example axis first.
        make_metric: () -> a fresh Metric.
        every_steps: interval in steps. It also runs at the end, and with `at_start` before the first step.
        at_start: whether it runs before the first step.
        best: name of a scalar; the checkpoint with its highest value is kept. "" for none. At most one evaluation of a
            task has it.

    Raises:
        ConfigError: a negative interval.
    """

    name: str
    batches: Callable[[], Iterator[Batch]]
    predict: Callable[[Any, Mapping[str, jax.Array]], Any]
    make_metric: Callable[[], Metric]
    every_steps: int = 0
    at_start: bool = False
    best: str = ""

    def __post_init__(self) -> None:
        if self.every_steps < 0:
            raise ConfigError(f"{self.name} is to be evaluated every {self.every_steps} steps: at least 0 is needed")


@dataclasses.dataclass(frozen=True)
class Task:
    """A model, its loss, its data and the grouping of its parameters.

    Attributes:
        name: "pretrain", "finetune", ...
        make_model: (nnx.Rngs) -> module with float32 parameters.
        loss: (model, batch, key) -> (scalar float32, metrics, model_state). Traced under jit with the global batch
            (micro-batch under accumulation); metrics is a flat dict of float32 scalars that average over micro-batches;
            model_state is `params.model_state_of(model)` after the forward pass.
        train_batches: (first_step) -> this host's batches from that step on, a pure function of (seed, step). Each has
            an "id" int64 [b] that identifies its examples and stays on the host. The global batch is the concatenation
            of the hosts' batches. The other axes may change from step to step, in the same way on every host; the step
            is compiled once for each shape.
        batch_size: global batch size.
        num_steps: number of steps of the whole run.
        steps_per_epoch: steps in an epoch (float), for reports.
        weight_decay_rules: (regular expression, decayed?) pairs searched in each parameter's path; every parameter must
            be matched by exactly one.
        layer_of: (path) -> layer id for layer-wise learning-rate decay, 0 for the embedding, up to depth + 1.
            None without it.
        trainable: (path) -> whether the parameter is trained. Frozen ones get no gradient, update or optimizer state.
        init_from: (params, model_state) -> (params, model_state) that start from another checkpoint; None for a
            random initialization. Called with host arrays when a run starts at step 0.
        evaluations: the evaluations to run at intervals.
        data: () -> {"name", "examples", "fingerprint"} of the training set, which a resumed run must find again; None
            where that is not to be checked.
        warnings: what is likely wrong with this run, one line each, told before its first step and in the dry run.
    """

    name: str
    make_model: Callable[[nnx.Rngs], nnx.Module]
    loss: Callable[[Any, Mapping[str, jax.Array], jax.Array], tuple[jax.Array, dict[str, jax.Array], Tree]]
    train_batches: Callable[[int], Iterator[Batch]]
    batch_size: int
    num_steps: int
    steps_per_epoch: float
    weight_decay_rules: tuple[tuple[str, bool], ...]
    layer_of: Callable[[str], int] | None = None
    trainable: Callable[[str], bool] = lambda path: True
    init_from: Callable[[Tree, Tree], tuple[Tree, Tree]] | None = None
    evaluations: tuple[Evaluation, ...] = ()
    warnings: tuple[str, ...] = ()
    data: Callable[[], Mapping[str, Any]] | None = None
