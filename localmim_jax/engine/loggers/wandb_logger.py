"""Weights & Biases. Its package reads the user's key and mode by itself; nothing here looks at them."""

import html
import importlib.util
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from localmim_jax.engine.loggers.base import Logger
from localmim_jax.errors import ConfigError
from localmim_jax.files import write_json

ID_FILE = "wandb.json"  # in the run directory: project and id of the W&B run that a resumed run continues
_STEP = "step"  # our own axis: W&B's refuses the steps that a run resumed from a checkpoint reports again


class WeightsAndBiases(Logger):
    """Reports to a project of Weights & Biases; its files lie in the run directory's `wandb/`.

    Args:
        project: "PROJECT" or "ENTITY/PROJECT".

    Raises:
        ConfigError: the package is missing, or no such name of a project.
    """

    def __init__(self, project: str):
        entity, _, name = project.rpartition("/")
        if not name or "/" in entity:
            raise ConfigError(f"log.wandb is {project!r}; write PROJECT or ENTITY/PROJECT, or leave it empty")
        if importlib.util.find_spec("wandb") is None:
            raise ConfigError(
                f"log.wandb={project} needs the package wandb: pip install 'localmim-jax[wandb]', or leave log.wandb "
                "empty"
            )
        self._project, self._entity, self._name = project, entity or None, name
        self._run: Any = None

    def start(self, workdir: Path, first_step: int) -> None:
        """Raises ConfigError: W&B has no login here, or refuses the project."""
        import wandb

        settings = wandb.Settings(console="off")  # the console belongs to the run's own log
        try:
            self._run = wandb.init(
                project=self._name,
                entity=self._entity,
                name=workdir.name,
                id=self._id(workdir),
                resume="allow",
                dir=str(workdir),
                settings=settings,
            )
        except wandb.errors.Error as error:
            reason = " ".join(str(error).split())
            raise ConfigError(
                f"log.wandb={self._project}: W&B does not start ({reason}): wandb login, or "
                "WANDB_MODE=offline in the environment, or leave log.wandb empty"
            ) from error
        self._run.define_metric(_STEP)
        self._run.define_metric("*", step_metric=_STEP)

    def config(self, values: Mapping[str, Any]) -> None:
        self._run.config.update(dict(values), allow_val_change=True)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({_STEP: step, **values})

    def images(self, step: int, values: Mapping[str, np.ndarray]) -> None:
        import wandb

        pictures = {
            name: [wandb.Image(image[..., 0] if image.shape[-1] == 1 else image) for image in batch]
            for name, batch in values.items()
        }
        self._run.log({_STEP: step, **pictures})

    def texts(self, step: int, values: Mapping[str, str]) -> None:
        import wandb

        pages = {name: wandb.Html(f"<pre>{html.escape(text)}</pre>") for name, text in values.items()}
        self._run.log({_STEP: step, **pages})

    def close(self, completed: bool) -> None:
        self._run.finish(exit_code=0 if completed else 1)

    def _id(self, workdir: Path) -> str:
        """The id of the run that was started here in this project, or a new one, which is written down."""
        path = workdir / ID_FILE
        try:
            known = json.loads(path.read_text())
            if known["project"] == self._project:
                return str(known["id"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # there is none, or it is damaged: another run begins
        new = uuid.uuid4().hex[:8]
        write_json(path, {"project": self._project, "id": new})
        return new
