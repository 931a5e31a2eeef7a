"""TensorBoard events, through clu."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from localmim_jax.engine.loggers.base import Logger


class TensorBoard(Logger):
    """Writes events into the run directory."""

    def start(self, workdir: Path, first_step: int) -> None:
        from clu import metric_writers  # loads TensorFlow, which takes seconds

        self._events: Any = metric_writers.AsyncMultiWriter([metric_writers.SummaryWriter(str(workdir))])

    def config(self, values: Mapping[str, Any]) -> None:
        self._events.write_hparams(dict(values))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._events.write_scalars(step, values)

    def images(self, step: int, values: Mapping[str, np.ndarray]) -> None:
        self._events.write_images(step, values)

    def texts(self, step: int, values: Mapping[str, str]) -> None:
        self._events.write_texts(step, values)

    def close(self, completed: bool) -> None:
        self._events.close()
