"""What the engine knows of a task: nothing but this protocol. Pre-training, fine-tuning, probing, segmentation and
detection are each one `Task`, and all of them run through the one loop in `engine.loop`."""

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
        """`outputs` is what `predict` gave for `batch`, both as global numpy arrays with padding already removed."""

    def compute(self) -> dict[str, Any]:
        """Scalars (float), pictures (uint8 [n, h, w, 3]) or texts (str) by name."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One evaluation, run at intervals by the engine.

    Attributes:
        name: prefix of what it reports, as in "knn/accuracy".
        batches: () -> this host's batches, none with more examples than the first. Every host yields equally many, each
            with a bool "valid" [b] that is False for padding (left out, all are valid); over all hosts each example is
            there once. The engine pads further where the devices cannot share a batch.
        predict: (model, batch) -> outputs, traced under jit with the global batch (without its "id"); a pytree whose
            leaves have the example axis first.
        make_metric: () -> a fresh Metric.
        every_steps: interval in steps; the end of the run always counts, the start where `at_start`.
        at_start: also before the first step.
        best: name of a scalar whose highest value decides which checkpoint is kept as the best; "" keeps none. At
            most one evaluation of a task has it.

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
    """What is learned, from what, and how its parameters are grouped.

    Attributes:
        name: "pretrain", "finetune", ...
        make_model: (nnx.Rngs) -> module with float32 parameters.
        loss: (model, batch, key) -> (scalar float32, metrics, model_state). Traced under jit with the global batch
            (micro-batch under accumulation); metrics is a flat dict of float32 scalars that average over micro-batches;
            model_state is `params.model_state_of(model)` after the forward pass.
        train_batches: (first_step) -> this host's batches from that step on: a pure function of (seed, step). Each has
            an "id" int64 [b] that names its examples and stays on the host; the hosts' batches one after the other are
            the global one. Their other axes may change from step to step, alike on every host: each new shape is
            compiled once.
        batch_size: global.
        num_steps: length of the whole run.
        steps_per_epoch: float, for reporting.
        weight_decay_rules: (regular expression, decayed?) pairs searched in each parameter's path; every parameter must
            be matched by exactly one.
        layer_of: (path) -> layer id for layer-wise learning-rate decay, 0 for the embedding, up to depth + 1.
            None without it.
        trainable: (path) -> whether the parameter is trained. Frozen ones get no gradient, update or optimizer state.
        init_from: (params, model_state) -> (params, model_state) that start from another checkpoint; None for a
            fresh start. Called on concrete host arrays only when a run starts at step 0.
        evaluations: run at intervals.
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
