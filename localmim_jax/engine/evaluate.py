"""Runs a task's evaluations: exact over every example once, whatever the batch, device and process count."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental.multihost_utils import process_allgather

from localmim_jax.engine import mesh as meshes
from localmim_jax.engine.state import StateSpec, evaluation_params
from localmim_jax.engine.task import Batch, Evaluation
from localmim_jax.errors import DataError
from localmim_jax.params import Tree, merge


class Evaluator:
    """One evaluation of one run; its prediction is compiled once.

    Batches may have any number of examples up to the first one's; they are padded to that, and to what the devices
    share evenly, by repeating an example that "valid" then leaves out.
    """

    def __init__(self, evaluation: Evaluation, spec: StateSpec):
        self.evaluation = evaluation
        self._mesh = spec.mesh
        self._size = 0

        def predict(params: Tree, model_state: Tree, batch: Mapping[str, jax.Array]) -> Any:
            return evaluation.predict(merge(spec.graphdef, params, model_state), batch)

        self._predict = jax.jit(predict, out_shardings=meshes.replicated(spec.mesh))

    def due(self, step: int, num_steps: int) -> bool:
        """Whether to run after `step` steps: at its interval, at the end, and where asked for before the first."""
        interval = self.evaluation.every_steps
        return step == num_steps or (self.evaluation.at_start if step == 0 else bool(interval) and step % interval == 0)

    def __call__(self, state: Tree, stop: Callable[[], bool] = lambda: False) -> dict[str, Any] | None:
        """What the metric computes for this state (its moving average where there is one), names prefixed.

        Args:
            stop: asked after every batch; if it says True, the evaluation is given up.

        Returns:
            Values by name, the same on every process; None if given up.

        Raises:
            DataError: there is no example to evaluate on.
        """
        params, metric, count = evaluation_params(state), self.evaluation.make_metric(), 0
        for batch in self.evaluation.batches():
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
        """What decides over the best checkpoint; None if this evaluation does not."""
        best = self.evaluation.best
        return float(results[f"{self.evaluation.name}/{best}"]) if best else None

    def _padded(self, batch: Batch) -> dict[str, np.ndarray]:
        batch = {name: np.asarray(array) for name, array in batch.items()}
        size = len(next(iter(batch.values())))
        batch.setdefault("valid", np.ones(size, bool))
        if not self._size:
            share = len(self._mesh.local_devices)
            self._size = -(-_largest_of_all_processes(size) // share) * share
        missing = self._size - size
        if missing < 0:
            raise DataError(f"evaluation {self.evaluation.name}: a batch of {size} examples after a smaller first one")
        if missing:
            batch = {name: np.concatenate([array, array[:1].repeat(missing, axis=0)]) for name, array in batch.items()}
            batch["valid"][size:] = False
        return batch


def _of_all_processes(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """This batch and those of the other processes, in the order in which the mesh has them."""
    if jax.process_count() == 1:
        return batch
    return {name: np.asarray(array) for name, array in process_allgather(batch, tiled=True).items()}


def _largest_of_all_processes(size: int) -> int:
    return size if jax.process_count() == 1 else int(process_allgather(np.int32(size)).max())
