"""The one training loop, for every task: next batch, step, log, save, evaluate."""

import dataclasses
import os
import time
from collections.abc import Hashable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, NoReturn

import jax
from absl import logging

from localmim_jax import faults
from localmim_jax.engine import memory
from localmim_jax.engine.checkpoints.lock import RunLock
from localmim_jax.engine.checkpoints.write import Checkpointer
from localmim_jax.engine.data_record import record_data
from localmim_jax.engine.divergence import DivergenceWatch
from localmim_jax.engine.evaluate import Evaluator
from localmim_jax.engine.in_flight import StepsInFlight, run_ahead_on
from localmim_jax.engine.loggers.base import Logger
from localmim_jax.engine.mesh import make_mesh
from localmim_jax.engine.metrics import Meter, RunSize, duration, size
from localmim_jax.engine.prefetch import DevicePrefetch, PlacedBatch
from localmim_jax.engine.profiler import Profiler
from localmim_jax.engine.progress import announce, log
from localmim_jax.engine.record import open_workdir, record_run
from localmim_jax.engine.settings import RunSettings
from localmim_jax.engine.signals import StopRequest
from localmim_jax.engine.state import StateSpec, state_hash
from localmim_jax.engine.step import CompiledStep, compile_step
from localmim_jax.engine.task import Task
from localmim_jax.engine.writer import MetricsWriter
from localmim_jax.errors import ConfigError, DataError, Interrupted, Preempted, StorageError, UserError
from localmim_jax.params import Tree

_EVALUATION_FAILED = "the evaluation %s of step %d failed; the step is saved, and the same command evaluates it again"

_EVALUATION_TOO_LARGE = "the evaluation %s does not fit into the device's memory: lower eval.batch_size or batch_size"


@dataclasses.dataclass(frozen=True)
class Summary:
    """How a run ended.

    Attributes:
        state: the final train state, on the devices.
        state_hash: sha256 over its parameters (`engine.state.state_hash`).
        evaluations: the last value of everything evaluated, by name.
    """

    state: Tree
    state_hash: str
    evaluations: dict[str, Any]


def run(
    task: Task,
    settings: RunSettings,
    workdir: str | os.PathLike[str],
    config: Mapping[str, Any],
    loggers: Sequence[Logger] = (),
) -> Summary:
    """Trains to the task's last step, resuming from the newest checkpoint in `workdir` if there is one.

    Args:
        task: what to learn.
        settings: everything else.
        workdir: the run directory; made if missing. One run at a time may use it.
        config: the resolved config, recorded there; a resumed run must have the one it was started with.
        loggers: more loggers, beside TensorBoard and `metrics.jsonl`; the first process uses them.

    Raises:
        ConfigError, DataError: before the first step, or where the data runs out; the state is saved.
        WorkerDied: an input worker was killed; the state is saved.
        Diverged: too many steps in a row were not finite.
        Preempted, Interrupted: SIGTERM or Ctrl-C came; the state is saved.
        StorageError: a checkpoint could not be written or read.
    """
    workdir = open_workdir(workdir)
    with RunLock(workdir), StopRequest() as stop:
        spec = StateSpec(task, settings, make_mesh(settings.mesh))
        settings.check_batch(task.batch_size, spec.mesh.size)
        checkpointer = Checkpointer(workdir / "checkpoints", settings.checkpoint)
        try:
            resuming = bool(checkpointer.steps())
            record_run(workdir, config, resuming)
            record_data(workdir, task, config, resuming)
            memory.check_state(spec)
            first_step, state = checkpointer.restore_latest(spec.abstract) or (0, spec.create())
            with MetricsWriter(workdir, first_step, loggers) as writer:
                announce(spec, first_step)
                writer.write_run(spec.abstract_params, config, settings.log.notes)
                summary = _Run(spec, workdir, checkpointer, writer, stop).train(first_step, state)
        except BaseException:
            try:
                checkpointer.close()
            except StorageError as error:  # what ended the run matters more
                logging.error("%s", error)
            raise
        checkpointer.close()
    if jax.process_index() == 0:
        print(f"state_hash {summary.state_hash}", flush=True)
    return summary


class _Run:
    """The loop and the objects that it uses."""

    def __init__(
        self, spec: StateSpec, workdir: Path, checkpointer: Checkpointer, writer: MetricsWriter, stop: StopRequest
    ):
        self.spec, self.task, self.settings = spec, spec.task, spec.settings
        self.checkpointer, self.writer, self.stop = checkpointer, writer, stop
        self.evaluators = [Evaluator(evaluation, spec) for evaluation in self.task.evaluations]
        self.evaluations: dict[str, Any] = {}
        task, dtype = self.task, self.settings.dtype
        run_size = RunSize(task.num_steps, task.steps_per_epoch, task.batch_size, spec.mesh.size, dtype)
        self.meter = Meter(run_size, writer.hours_so_far())
        self.divergence = DivergenceWatch(workdir, self.settings.optimizer.max_bad_steps)
        self.in_flight = StepsInFlight(run_ahead_on(list(spec.mesh.devices.flat)), self._on_finished)
        self.profiler = Profiler(workdir / "profile", self.settings.log.profile_at)
        self.programs: dict[Hashable, CompiledStep] = {}
        self.estimate: memory.Estimate | None = None
        self.save_every = self.settings.checkpoint.interval(self.task.steps_per_epoch)

    def train(self, first_step: int, state: Tree) -> Summary:
        """To the last step. Raises: see `run`; an out-of-memory error of XLA as ConfigError, with the estimate."""
        try:
            return self._train(first_step, state)
        except UserError:
            raise
        except Exception as error:
            told = memory.explained(error, self.spec, self.estimate)
            if told is None:
                raise
            raise told from error

    def _train(self, first_step: int, state: Tree) -> Summary:
        num_steps, step = self.task.num_steps, first_step
        # Also on resuming: an evaluation that was due here may have been cut short. It changes nothing but the logs.
        self._evaluate(step, state)
        source = self.task.train_batches(first_step)
        with DevicePrefetch(self.spec.mesh, source, first_step, num_steps) as batches:
            while batch := self._next(batches, step, state):
                program = self._program(batch, batches.waited)
                faults.crash_at("in_step", batch.step)
                self.profiler.before(batch.step)
                state, metrics = program.run(state, batch.arrays)
                step = batch.step + 1
                self.in_flight.add(batch, metrics)
                stopped = self.stop.agreed(step)
                if step % self.settings.log.every_steps == 0 or step == num_steps or stopped:
                    self._log(step, batches.waited)
                self.profiler.after(step, self.in_flight.wait, last=step == num_steps or bool(stopped))
                if stopped:
                    self._leave(stopped, step, state)
                if self._save_is_due(step) or self._due(step):
                    self._save(step, state)  # before evaluating: an evaluation that fails costs no step
                self._evaluate(step, state)
                self.checkpointer.check()
        log("done: %d steps", step)
        return Summary(state, state_hash(state["params"]), self.evaluations)

    def _next(self, batches: DevicePrefetch, step: int, state: Tree) -> PlacedBatch | None:
        """The next batch, or None after the last. What is trained is saved where the data or a worker fails."""
        while not batches.ready():
            if self._asked_to_stop():  # the disk may be dead, and the batch may never come
                self._leave(self.stop.requested or "SIGTERM", step, state)
        try:
            return next(batches, None)
        except Exception:
            if step and jax.process_count() == 1:  # several processes save together, and the others may be well
                self._save(step, state)
                logging.error("no batch after step %d, which is saved", step)
            raise

    def _on_finished(self, batch: PlacedBatch, metrics: dict[str, float]) -> None:
        self.meter.add(metrics)
        self.divergence.check(batch, metrics)

    def _program(self, batch: PlacedBatch, waited: float) -> CompiledStep:
        """The step for this batch's shapes, compiled at the first batch of these shapes. Detection has several."""
        shapes = batch.shapes
        if not self.programs:
            self.programs[shapes] = self._compile(batch)
            self.meter.start(self.programs[shapes].flops, waited)
        elif shapes not in self.programs:
            self.in_flight.wait()
            with self.meter.paused():
                self.programs[shapes] = self._compile(batch)
        return self.programs[shapes]

    def _compile(self, batch: PlacedBatch) -> CompiledStep:
        found = {len(array) for array in batch.arrays.values()}
        if found != {self.task.batch_size}:
            raise DataError(f"training batches have {sorted(found)} examples over all processes, not batch_size")
        example = {name: jax.ShapeDtypeStruct(array.shape[1:], array.dtype) for name, array in batch.arrays.items()}
        self.estimate = memory.warn_before_compiling(self.spec, example)
        program = compile_step(self.spec, batch.arrays)
        memory.check_compiled(self.spec, program.bytes_per_device, self.estimate)
        parts = [
            f"step compiled in {duration(program.seconds)}",
            f"{program.flops / self.task.batch_size / 1e9:.3g} GFLOP an image, forward and backward",
        ]
        if program.bytes_per_device is not None:
            parts.append(f"{size(program.bytes_per_device)} of each device")
        log("%s", "; ".join(parts))
        return program

    def _log(self, step: int, waited: float) -> None:
        self.in_flight.wait()
        scalars = self.meter.report(step, waited)
        self.writer.write(step, scalars)
        log("%s", self.meter.line(step, scalars))

    def _save_is_due(self, step: int) -> bool:
        return step == self.task.num_steps or bool(self.save_every and step % self.save_every == 0)

    def _save(self, step: int, state: Tree) -> None:
        self.in_flight.wait()  # finds a diverged run before it replaces an older checkpoint
        with self.meter.paused():
            self.checkpointer.save(step, state)

    def _due(self, step: int) -> list[Evaluator]:
        return [evaluator for evaluator in self.evaluators if evaluator.due(step, self.task.num_steps)]

    def _evaluate(self, step: int, state: Tree) -> None:
        """Runs the evaluations that are due, and gives their score to the saved step."""
        due = self._due(step)
        if due:
            self.in_flight.wait()
        for evaluator in due:
            with self.meter.paused():
                start = time.perf_counter()
                try:
                    results = evaluator(state, self._asked_to_stop)
                except Exception as error:
                    if step:
                        logging.error(_EVALUATION_FAILED, evaluator.evaluation.name, step)
                    if memory.explained(error, self.spec, None):
                        raise ConfigError(_EVALUATION_TOO_LARGE % evaluator.evaluation.name) from error
                    raise
            if results is None:
                self._leave(self.stop.requested or "SIGTERM", step, state)
            self.evaluations |= results
            shown = _shown(results, self.writer.write(step, results))
            log("step %d  %s  (%s)", step, shown, duration(time.perf_counter() - start))
            score = evaluator.score(results)
            if score is not None and step:
                with self.meter.paused():
                    self.checkpointer.rate(step, score)

    def _asked_to_stop(self) -> bool:
        # Several processes agree only between steps, so they finish their evaluation.
        return jax.process_count() == 1 and self.stop.requested is not None

    def _leave(self, reason: str, step: int, state: Tree) -> NoReturn:
        self._save(step, state)
        self.checkpointer.close()
        error = Interrupted if reason == "SIGINT" else Preempted
        raise error(f"{reason}: step {step} of {self.task.num_steps} is saved; the same command resumes from there")


def _shown(results: Mapping[str, Any], paths: list[Path]) -> str:
    """An evaluation in one line: its numbers, without those of single classes, and the files of its images."""
    numbers = {name: value for name, value in results.items() if isinstance(value, Real) and "/class/" not in name}
    return "  ".join([f"{name} {value:.4g}" for name, value in numbers.items()] + [f"picture {path}" for path in paths])
