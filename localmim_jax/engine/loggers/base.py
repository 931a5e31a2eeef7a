"""What a logger is: an object that receives what a run reports."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


class Logger:
    """Receives the reports of a run. A subclass overrides what it needs; every method here does nothing.

    Only the first process of a run has loggers. An error in `start` ends the run before its first step. An error in
    any other method gives one warning, and the run goes on without this logger.
    """

    def start(self, workdir: Path, first_step: int) -> None:
        """Called once before anything else.

        Args:
            workdir: the run directory, which exists.
            first_step: the step from which the run starts, or resumes: later reports may be repeated.
        """

    def config(self, values: Mapping[str, Any]) -> None:
        """The run's config, flat: "schedule.base_lr" -> bool, int, float or str."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers by name, as in "loss" and "knn/accuracy", after `step` steps."""

    def images(self, step: int, values: Mapping[str, np.ndarray]) -> None:
        """Pictures by name, uint8 [n, h, w, c]."""

    def texts(self, step: int, values: Mapping[str, str]) -> None:
        """Texts by name, in Markdown."""

    def close(self, completed: bool) -> None:
        """Called last. `completed` is False where the run was stopped or failed."""
