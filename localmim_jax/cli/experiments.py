"""A run of a table or figure: its command, how far it has come, and doing the rest of it."""

import dataclasses
import enum
import shlex
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from localmim_jax.errors import DataError
from localmim_jax.files import read_json, read_reports
from localmim_jax.recipes.load import load_config
from localmim_jax.recipes.override import override, record


class State(enum.Enum):
    """Of a run. One that was interrupted has begun; the same command goes on with it."""

    MISSING = "missing"
    BEGUN = "begun"
    RUNNING = "running"
    DONE = "done"


_START = "checkpoint.init_from="


@dataclasses.dataclass(frozen=True)
class Run:
    """One call of `localmim train`.

    Attributes:
        config: a file, or file:argument.
        workdir: relative to where the command is given.
        overrides: "key=value" each.
    """

    config: str
    workdir: str
    overrides: tuple[str, ...] = ()

    def command(self) -> str:
        """For a shell."""
        words = ["localmim", "train", f"--config={self.config}", f"--workdir={self.workdir}"]
        return shlex.join([*words, *(f"--config.{override}" for override in self.overrides)])

    def load(self) -> ConfigDict:
        """The resolved config."""
        return override(load_config(self.config), self.overrides)

    def state(self) -> State:
        """See `state_of`."""
        return state_of(Path(self.workdir))

    def start(self) -> Path | None:
        """The directory of the run whose weights this one starts from; None if it starts from scratch."""
        named = [text.removeprefix(_START) for text in self.overrides if text.startswith(_START)]
        return Path(named[-1]) if named else None

    def progress(self) -> str:
        """ "done", or "begun, step 120 of 240" where the log tells."""
        state = self.state()
        reports = [line for line in metrics(Path(self.workdir)) if "progress/epoch" in line]
        if state in (State.DONE, State.MISSING) or not reports:
            return state.value
        return f"{state.value}, step {reports[-1]['step']:.0f} of {last_step(Path(self.workdir))}"

    def run(self) -> None:
        """From where it stands to its end, in this process. Raises what `engine.loop.run` raises."""
        import jax

        from localmim_jax.build import build_task, loggers_of
        from localmim_jax.engine import loop

        config = self.load()
        task, settings = build_task(config, self.workdir)
        loop.run(task, settings, self.workdir, record(config), loggers_of(config))
        jax.clear_caches()


def state_of(workdir: Path) -> State:
    """Told by the run directory alone: its lock, and whether the last step of the schedule is saved."""
    from localmim_jax.engine.checkpoints import lock
    from localmim_jax.engine.checkpoints.read import complete_steps

    if lock.holder(workdir):
        return State.RUNNING
    saved = complete_steps(workdir / "checkpoints")
    last = last_step(workdir) if saved else None
    if last is not None and last in saved:
        return State.DONE
    return State.BEGUN if saved or (workdir / "config.json").is_file() else State.MISSING


def metrics(workdir: Path) -> list[dict[str, Any]]:
    """The lines of a run's log; [] without one. A line that is being written is left out, and so are
    damaged ones.

    Raises:
        DataError: it cannot be read.
    """
    file = workdir / "metrics.jsonl"
    try:
        return read_reports(file)[0]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error


def last_step(workdir: Path) -> int | None:
    """The step at which a run ends, from its own records; None before its first report."""
    reports = [line for line in metrics(workdir) if line.get("progress/epoch")]
    file = workdir / "config.json"
    if not reports or not file.is_file():
        return None
    try:
        config: dict[str, Any] = read_json(file)
        if config["num_steps"] is not None:
            return int(config["num_steps"])
        return round(config["num_epochs"] * reports[-1]["step"] / reports[-1]["progress/epoch"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file} is damaged ({type(error).__name__}: {error}): repair it, or move the run away"
        ) from error


def top1(workdir: Path) -> float | None:
    """The last top-1 accuracy that a run evaluated, in 0..1; None if there is none."""
    values = [line[name] for line in metrics(workdir) for name in line if name.endswith("/top1")]
    return None if not values or values[-1] is None else float(values[-1])
