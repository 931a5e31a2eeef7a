"""`metrics.jsonl`: one JSON object per report, with "step", "time" (seconds since 1970) and scalars by name."""

import json
import math
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from absl import logging

from localmim_jax.engine.loggers.base import Logger
from localmim_jax.files import read_reports, replacing

FILE = "metrics.jsonl"


class JsonLines(Logger):
    """Appends the scalars to `metrics.jsonl`. Lines that a resumed run will write again are removed first."""

    def start(self, workdir: Path, first_step: int) -> None:
        self._path = workdir / FILE
        _drop_after(self._path, first_step)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        entry = {"step": step, "time": round(time.time(), 3), **values}
        numbers = {name: value if math.isfinite(value) else None for name, value in entry.items()}
        with open(self._path, "a") as handle:
            handle.write(json.dumps(numbers) + "\n")


def hours_so_far(workdir: Path) -> float:
    """Device hours of the run before this start; 0 for a new run, and where the file cannot be read."""
    try:
        entries, _ = read_reports(workdir / FILE)
    except OSError:
        return 0.0
    return max((entry.get("time/device_hours") or 0.0 for entry in entries), default=0.0)


def _drop_after(path: Path, step: int) -> None:
    """Removes the lines that a run resumed from `step` writes again, and those that are damaged or incomplete."""
    if not path.exists():
        return
    kept = []
    entries, damaged = read_reports(path)
    if damaged:
        aside = path.with_name(path.name + ".damaged")
        shutil.copyfile(path, aside)
        logging.warning("%s: %d damaged lines are left out; the old file is kept as %s", path, damaged, aside.name)
    for entry in entries:
        # Evaluations of that very step are run again.
        if entry["step"] < step or (entry["step"] == step and "learning_rate" in entry):
            kept.append(json.dumps(entry) + "\n")
    with replacing(path) as temporary:
        temporary.write_text("".join(kept))
