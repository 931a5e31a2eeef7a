"""Evaluation of a task: exact over every example once, for any batch size and any number of devices and processes."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental.multihost_utils import process_allgather

from localmim_jax.engine import mesh as meshes
from localmim_jax.engine.prefetch import interruptible
from localmim_jax.engine.state import StateSpec, evaluation_params
from localmim_jax.engine.task import Batch, Evaluation
from localmim_jax.errors import DataError
from localmim_jax.params import Tree, merge


class Evaluator:
    """One evaluation of one run; its prediction is compiled once.

    No batch may have more examples than the first. Batches are padded to the size of the first, rounded up to a
    multiple of the devices, by repeating an example. "valid" is False for the padding.
    """

    def __init__(self, evaluation: Evaluation, spec: StateSpec):
        self.evaluation = evaluation
        self._mesh = spec.mesh
        self._size = 0

        def predict(params: Tree, model_state: Tree, batch: Mapping[str, jax.Array]) -> Any:
            return evaluation.predict(merge(spec.graphdef, params, model_state), batch)

        self._predict = jax.jit(predict, out_shardings=meshes.replicated(spec.mesh))

    def due(self, step: int, num_steps: int) -> bool:
        """Whether to run after `step` steps: at its interval, at the end, and before the first one with `at_start`."""
        interval = self.evaluation.every_steps
        return step == num_steps or (self.evaluation.at_start if step == 0 else bool(interval) and step % interval == 0)

    def __call__(self, state: Tree, stop: Callable[[], bool] = lambda: False) -> dict[str, Any] | None:
        """The metric's values for this state (for its moving average, if there is one), with prefixed names.

        Args:
            stop: called after every batch, and while one is waited for; True aborts the evaluation.

        Returns:
            Values by name, the same on every process; None if aborted.

        Raises:
            DataError: the evaluation has no examples.
        """
        params, metric, count = evaluation_params(state), self.evaluation.make_metric(), 0
        for batch in interruptible(iter(self.evaluation.batches()), stop):
            if batch is None:
                return None
            batch = self._padded(batch)
            outputs = self._predict(params, state["model_state"], meshes.place_batch(self._mesh, batch))
            outputs, batch = jax.device_get(outputs), _of_all_processes(batch)
            valid = batch["valid"]
            count += int(valid.sum())
            metric.update(
                jax.tree.map(lambda leaf: leaf[valid], outputs), {name: array[valid] for name, array in batch.items()}
            )
            if stop():
                return None
        if not count:
            raise DataError(f"evaluation {self.evaluation.name}: there is no example; check its data source and split")
        return {f"{self.evaluation.name}/{name}": value for name, value in metric.compute().items()}

    def score(self, results: Mapping[str, Any]) -> float | None:
        """The score of the best-checkpoint rule; None if this evaluation does not give it."""
        best = self.evaluation.best
        return float(results[f"{self.evaluation.name}/{best}"]) if best else None

    def _padded(self, batch: Batch) -> dict[str, np.ndarray]:
        batch = {name: np.asarray(array) for name, array in batch.items()}
        size = len(next(iter(batch.values())))
        batch.setdefault("valid", np.ones(size, bool))
        if not self._size:
            local_devices = len(self._mesh.local_devices)
            self._size = -(-_largest_of_all_processes(size) // local_devices) * local_devices
        missing = self._size - size
        if missing < 0:
            raise DataError(f"evaluation {self.evaluation.name}: a batch of {size} examples after a smaller first one")
        if missing:
            batch = {name: np.concatenate([array, array[:1].repeat(missing, axis=0)]) for name, array in batch.items()}
            batch["valid"][size:] = False
        return batch


def _of_all_processes(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The batches of all processes, concatenated in the order of the mesh."""
    if jax.process_count() == 1:
        return batch
    return {name: np.asarray(array) for name, array in process_allgather(batch, tiled=True).items()}


def _largest_of_all_processes(size: int) -> int:
    return size if jax.process_count() == 1 else int(process_allgather(np.int32(size)).max())
