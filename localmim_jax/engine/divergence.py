"""The divergence watch: too many non-finite steps in a row end the run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from localmim_jax.engine.prefetch import PlacedBatch
from localmim_jax.errors import Diverged
from localmim_jax.files import write_json


class DivergenceWatch:
    """Looks at the metrics of every step in order.

    Args:
        workdir: where `diverged.json` is written, with the steps, examples and metrics of the non-finite steps.
        max_bad_steps: non-finite steps in a row that end the run.
    """

    def __init__(self, workdir: Path, max_bad_steps: int):
        self._path, self._max_bad_steps = workdir / "diverged.json", max_bad_steps
        self._bad: list[dict[str, Any]] = []

    def check(self, batch: PlacedBatch, metrics: Mapping[str, float]) -> None:
        """Warns of a skipped step. Raises Diverged if it is the last of too many in a row."""
        if not metrics["skipped"]:
            self._bad.clear()
            return
        text = "step %d is not finite (loss %g, gradient norm %g): skipped"
        logging.warning(text, batch.step + 1, metrics["loss"], metrics["norm/gradient"])
        numbers = {name: value if np.isfinite(value) else None for name, value in metrics.items()}
        self._bad.append({"step": batch.step + 1, "ids": batch.ids.tolist(), **numbers})
        if metrics["skipped_in_a_row"] >= self._max_bad_steps:
            self._give_up(batch)

    def _give_up(self, batch: PlacedBatch) -> None:
        if jax.process_index() == 0:
            write_json(self._path, self._bad)
        shown = ", ".join(map(str, batch.ids[:8])) + (", ..." if len(batch.ids) > 8 else "")
        raise Diverged(
            f"loss or gradient was not finite in {self._max_bad_steps} steps in a row, the last being {batch.step + 1} "
            f"with examples {shown} (all in {self._path}); these steps changed neither parameters nor checkpoints; "
            "look at these examples, or lower the learning rate in another workdir"
        )
