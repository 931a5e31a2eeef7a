"""The logs of a run: TensorBoard events (through clu), `metrics.jsonl`, images and texts.

If a log cannot be written, one warning is given, that log ends, and training continues.
"""

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from PIL import Image

from localmim_jax.files import read_reports, replacing
from localmim_jax.params import Tree, flatten


class MetricsWriter:
    """Writes into a run directory from the first process; does nothing on the others. A context manager.

    `metrics.jsonl` has one JSON object per report: "step", "time" (seconds since 1970) and scalars by name. Lines that
    a resumed run will write again are removed first, so that each training step is in the file once.

    Args:
        workdir: the run directory, which exists.
        first_step: the step from which the run starts or resumes.
    """

    def __init__(self, workdir: Path, first_step: int):
        self._enabled = jax.process_index() == 0
        self._workdir = workdir
        self._events: Any = None
        self._given_up: set[str] = set()
        if self._enabled:
            self._attempt("metrics.jsonl", _drop_after, workdir / "metrics.jsonl", first_step)
            self._attempt("TensorBoard events", self._open_events)

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._to_events(lambda events: events.close())

    def write_run(self, params: Tree, config: Mapping[str, Any], notes: str) -> None:
        """Writes the parameter overview (`parameters.txt`), the config and the notes at the start of a run."""
        from clu import parameter_overview

        if not self._enabled:
            return
        table = parameter_overview.get_parameter_overview(params, include_stats=False)
        self._attempt("parameters.txt", (self._workdir / "parameters.txt").write_text, table + "\n")
        texts = {"parameters": f"```\n{table}\n```"} | ({"notes": notes} if notes else {})
        self._to_events(lambda events: events.write_texts(0, texts))
        plain = {path.replace("/", "."): _plain(value) for path, value in flatten(config).items()}
        self._to_events(lambda events: events.write_hparams(plain))

    def write(self, step: int, values: Mapping[str, Any]) -> list[Path]:
        """Writes numbers as scalars, strings as texts, and uint8 [n, h, w, c] as images.

        Returns:
            The files of the images.
        """
        if not self._enabled:
            return []
        texts = {name: value for name, value in values.items() if isinstance(value, str)}
        images = {name: value for name, value in values.items() if np.ndim(value) == 4}
        scalars = {name: float(value) for name, value in values.items() if name not in texts and name not in images}
        if scalars:
            self._attempt("metrics.jsonl", self._append, {"step": step, "time": round(time.time(), 3), **scalars})
            self._to_events(lambda events: events.write_scalars(step, scalars))
        if texts:
            self._to_events(lambda events: events.write_texts(step, texts))
        if images:
            self._to_events(lambda events: events.write_images(step, images))
        paths: list[Path] = []
        for name, batch in images.items():
            for index, image in enumerate(batch):
                path = (
                    self._workdir / "pictures" / f"{name.replace('/', '-')}-{step:07d}{f'-{index}' * bool(index)}.png"
                )
                self._attempt("pictures", _save_image, path, image)
                paths += [path] if "pictures" not in self._given_up else []
        return paths

    def hours_so_far(self) -> float:
        """Device hours of the run before this start; 0 for a new run."""
        try:
            entries, _ = read_reports(self._workdir / "metrics.jsonl") if self._enabled else ([], 0)
        except OSError:
            return 0.0
        return max((entry.get("time/device_hours") or 0.0 for entry in entries), default=0.0)

    def _append(self, entry: dict[str, Any]) -> None:
        numbers = {name: value if math.isfinite(value) else None for name, value in entry.items()}
        with open(self._workdir / "metrics.jsonl", "a") as handle:
            handle.write(json.dumps(numbers) + "\n")

    def _open_events(self) -> None:
        from clu import metric_writers  # loads TensorFlow, which takes seconds

        self._events = metric_writers.AsyncMultiWriter([metric_writers.SummaryWriter(str(self._workdir))])

    def _to_events(self, write: Callable[[Any], None]) -> None:
        if self._events is not None:
            self._attempt("TensorBoard events", write, self._events)

    def _attempt(self, what: str, function: Callable[..., Any], *arguments: Any) -> None:
        if what in self._given_up:
            return
        try:
            function(*arguments)
        except Exception as error:
            self._given_up.add(what)
            logging.warning("%s in %s cannot be written any more: %s", what, self._workdir, error)


def _save_image(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(path)


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


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)
