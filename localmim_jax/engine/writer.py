"""The logs of a run: its loggers (TensorBoard, `metrics.jsonl` and others), and its pictures as files.

If a log cannot be written, one warning is given, that log ends, and training continues.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from PIL import Image

from localmim_jax.engine.loggers import jsonl
from localmim_jax.engine.loggers.base import Logger
from localmim_jax.engine.loggers.jsonl import JsonLines
from localmim_jax.engine.loggers.tensorboard import TensorBoard
from localmim_jax.params import Tree, flatten


class MetricsWriter:
    """Writes into a run directory from the first process; does nothing on the others. A context manager.

    Lines of `metrics.jsonl` that a resumed run will write again are removed first, so that each training step is in the
    file once.

    Args:
        workdir: the run directory, which exists.
        first_step: the step from which the run starts or resumes.
        loggers: more loggers, beside TensorBoard and `metrics.jsonl`. An error in their `start` is raised.
    """

    def __init__(self, workdir: Path, first_step: int, loggers: Sequence[Logger] = ()):
        self._enabled = jax.process_index() == 0
        self._workdir = workdir
        self._given_up: set[str] = set()
        self._loggers: dict[str, Logger] = {}
        if not self._enabled:
            return
        own: dict[str, Logger] = {"metrics.jsonl": JsonLines(), "TensorBoard events": TensorBoard()}
        for name, logger in own.items():
            self._loggers[name] = logger
            self._attempt(name, logger.start, workdir, first_step)
        for logger in loggers:
            try:
                logger.start(workdir, first_step)
            except BaseException:
                self._close(completed=False)
                raise
            same = sum(type(other) is type(logger) for other in self._loggers.values())
            self._loggers[f"logger {type(logger).__name__}{f' ({same + 1})' * bool(same)}"] = logger

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._close(completed=kind is None)

    def write_run(self, params: Tree, config: Mapping[str, Any], notes: str) -> None:
        """Writes the parameter overview (`parameters.txt`), the config and the notes at the start of a run."""
        from clu import parameter_overview

        if not self._enabled:
            return
        table = parameter_overview.get_parameter_overview(params, include_stats=False)
        self._attempt("parameters.txt", (self._workdir / "parameters.txt").write_text, table + "\n")
        texts = {"parameters": f"```\n{table}\n```"} | ({"notes": notes} if notes else {})
        self._to_loggers(lambda logger: logger.texts(0, texts))
        plain = {path.replace("/", "."): _plain(value) for path, value in flatten(config).items()}
        self._to_loggers(lambda logger: logger.config(plain))

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
            self._to_loggers(lambda logger: logger.scalars(step, scalars))
        if texts:
            self._to_loggers(lambda logger: logger.texts(step, texts))
        if images:
            self._to_loggers(lambda logger: logger.images(step, images))
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
        return jsonl.hours_so_far(self._workdir) if self._enabled else 0.0

    def _close(self, completed: bool) -> None:
        for name, logger in self._loggers.items():
            if name in self._given_up:
                with contextlib.suppress(Exception):
                    logger.close(completed=False)
            self._attempt(name, logger.close, completed)

    def _to_loggers(self, write: Callable[[Logger], None]) -> None:
        for name, logger in self._loggers.items():
            self._attempt(name, write, logger)

    def _attempt(self, what: str, function: Callable[..., Any], *arguments: Any) -> None:
        if what in self._given_up:
            return
        try:
            function(*arguments)
        except Exception as error:
            self._given_up.add(what)
            logging.warning("%s in %s fails and is left out from here on: %s", what, self._workdir, error)


def _save_image(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(path)


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)
