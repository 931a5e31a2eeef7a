"""The one training loop, for every task: next batch, step, log, evaluate, save; and leave in order, however it ends."""

import collections
import dataclasses
import os
import time
from collections.abc import Hashable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
from absl import logging

from localmim_jax import faults
from localmim_jax.engine.checkpoints.lock import RunLock
from localmim_jax.engine.checkpoints.write import Checkpointer
from localmim_jax.engine.evaluate import Evaluator
from localmim_jax.engine.flops import parameter_count
from localmim_jax.engine.mesh import make_mesh
from localmim_jax.engine.metrics import Meter, RunSize, duration, size
from localmim_jax.engine.prefetch import DevicePrefetch, PlacedBatch
from localmim_jax.engine.record import open_workdir, record_run
from localmim_jax.engine.settings import RunSettings
from localmim_jax.engine.signals import StopRequest
from localmim_jax.engine.state import StateSpec, state_hash
from localmim_jax.engine.step import CompiledStep, compile_step
from localmim_jax.engine.task import Task
from localmim_jax.engine.writer import MetricsWriter
from localmim_jax.errors import DataError, Diverged, Interrupted, Preempted, StorageError
from localmim_jax.files import write_json
from localmim_jax.params import Tree

RUN_AHEAD = 2  # steps that may be under way on the devices while the host prepares the next one
PROFILED_STEPS = 5


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


def run(task: Task, settings: RunSettings, workdir: str | os.PathLike[str], config: Mapping[str, Any]) -> Summary:
    """Trains to the task's last step, resuming from the newest checkpoint in `workdir` if there is one.

    Args:
        task: what to learn.
        settings: everything else.
        workdir: the run directory; made if missing. One run at a time may use it.
        config: the resolved config, recorded there; a resumed run must have the one it was started with.

    Raises:
        ConfigError, DataError: before the first step, or where the data runs out.
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
            record_run(workdir, config, resuming=bool(checkpointer.steps()))
            first_step, state = checkpointer.restore_latest(spec.abstract) or (0, spec.create())
            with MetricsWriter(workdir, first_step) as writer:
                _announce(spec, first_step, config, writer)
                summary = _Run(spec, workdir, checkpointer, writer, stop).go(first_step, state)
        except BaseException:
            try:
                checkpointer.close()
            except StorageError as error:  # what made the run end matters more
                logging.error("%s", error)
            raise
        checkpointer.close()
    if jax.process_index() == 0:
        print(f"state_hash {summary.state_hash}", flush=True)
    return summary


class _Run:
    """The loop with what it needs at hand."""

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
        self.in_flight = _InFlight(self.meter, workdir, self.settings.optimizer.max_bad_steps, _run_ahead(spec))
        self.profile = _Profile(workdir / "profile", self.settings.log.profile_at)
        self.save_every = self.settings.checkpoint.interval(self.task.steps_per_epoch)

    def go(self, first_step: int, state: Tree) -> Summary:
        num_steps, step = self.task.num_steps, first_step
        programs: dict[Hashable, CompiledStep] = {}  # by the batch's shapes: detection has several
        # Also on resuming: an evaluation that was due here may have been cut short. It changes nothing but the logs.
        self._evaluate(step, state)
        source = self.task.train_batches(first_step)
        with DevicePrefetch(self.spec.mesh, source, first_step, num_steps) as batches:
            for batch in batches:
                program = programs.get(batch.shapes)
                if program is None:
                    program = self._compile_next(batch, batches.waited, first=not programs)
                    programs[batch.shapes] = program
                faults.crash_at("in_step", batch.step)
                self.profile.before(batch.step)
                state, metrics = program.run(state, batch.arrays)
                step = batch.step + 1
                self.in_flight.add(batch, metrics)
                stopped = self.stop.agreed(step)
                if step % self.settings.log.every_steps == 0 or step == num_steps or stopped:
                    self.in_flight.wait()
                    self._log(step, batches.waited)
                self.profile.after(step, self.in_flight, last=step == num_steps or bool(stopped))
                if stopped:
                    self._leave(stopped, step, state)
                self._evaluate_and_save(step, state)
                self.checkpointer.check()
        _tell("done: %d steps", step)
        return Summary(state, state_hash(state["params"]), self.evaluations)

    def _compile_next(self, batch: PlacedBatch, waited: float, first: bool) -> CompiledStep:
        if first:
            program = self._compile(batch)
            self.meter.start(program.flops, waited)
            return program
        self.in_flight.wait()
        with self.meter.paused():
            return self._compile(batch)

    def _compile(self, batch: PlacedBatch) -> CompiledStep:
        found = {len(array) for array in batch.arrays.values()}
        if found != {self.task.batch_size}:
            raise DataError(f"training batches have {sorted(found)} examples over all processes, not batch_size")
        program = compile_step(self.spec, batch.arrays)
        parts = [
            f"step compiled in {duration(program.seconds)}",
            f"{program.flops / self.task.batch_size / 1e9:.3g} GFLOP an image, forward and backward",
        ]
        if program.bytes_per_device is not None:
            parts.append(f"{size(program.bytes_per_device)} of each device")
        _tell("%s", "; ".join(parts))
        return program

    def _log(self, step: int, waited: float) -> None:
        scalars = self.meter.report(step, waited)
        self.writer.write(step, scalars)
        _tell("%s", self.meter.line(step, scalars))

    def _evaluate_and_save(self, step: int, state: Tree) -> None:
        score = self._evaluate(step, state)
        at_interval = self.save_every and step % self.save_every == 0
        if at_interval or score is not None or step == self.task.num_steps:
            self._save(step, state, score)

    def _save(self, step: int, state: Tree, score: float | None = None) -> None:
        self.in_flight.wait()  # a diverged run is found out here, before it replaces an older checkpoint
        with self.meter.paused():
            self.checkpointer.save(step, state, score)

    def _evaluate(self, step: int, state: Tree) -> float | None:
        """Runs what is due; the score that decides over the best checkpoint, if one of them gives it."""
        due = [evaluator for evaluator in self.evaluators if evaluator.due(step, self.task.num_steps)]
        if due:
            self.in_flight.wait()
        score = None
        for evaluator in due:
            with self.meter.paused():
                start = time.perf_counter()
                results = evaluator(state, self._asked_to_stop)
            if results is None:
                self._leave(self.stop.requested or "SIGTERM", step, state)
            self.evaluations |= results
            paths = self.writer.write(step, results)
            # Hundreds of classes are for the files.
            numbers = {
                name: value for name, value in results.items() if isinstance(value, Real) and "/class/" not in name
            }
            shown = [f"{name} {value:.4g}" for name, value in numbers.items()] + [f"picture {path}" for path in paths]
            _tell("step %d  %s  (%s)", step, "  ".join(shown), duration(time.perf_counter() - start))
            score = evaluator.score(results) if evaluator.evaluation.best else score
        return score

    def _asked_to_stop(self) -> bool:
        # Several processes agree only between steps, so they finish their evaluation.
        return jax.process_count() == 1 and self.stop.requested is not None

    def _leave(self, reason: str, step: int, state: Tree) -> NoReturn:
        self._save(step, state)
        self.checkpointer.close()
        error = Interrupted if reason == "SIGINT" else Preempted
        raise error(f"{reason}: step {step} of {self.task.num_steps} is saved; the same command resumes from there")


class _InFlight:
    """Steps whose metrics the host has not read yet. Reading waits for the step, so only old ones are read."""

    def __init__(self, meter: Meter, workdir: Path, max_bad_steps: int, run_ahead: int):
        self._meter, self._workdir = meter, workdir
        self._max_bad_steps, self._run_ahead = max_bad_steps, run_ahead
        self._steps: collections.deque[tuple[PlacedBatch, dict[str, jax.Array]]] = collections.deque()
        self._bad: list[dict[str, Any]] = []

    def add(self, batch: PlacedBatch, metrics: dict[str, jax.Array]) -> None:
        for value in metrics.values():
            value.copy_to_host_async()
        self._steps.append((dataclasses.replace(batch, arrays={}), metrics))
        while len(self._steps) > self._run_ahead:
            self._read()

    def wait(self) -> None:
        """Until every step is finished."""
        while self._steps:
            self._read()

    def _read(self) -> None:
        batch, arrays = self._steps.popleft()
        metrics = {name: float(value) for name, value in arrays.items()}
        self._meter.add(metrics)
        if not metrics["skipped"]:
            self._bad.clear()
            return
        text = "step %d is not finite (loss %g, gradient norm %g): skipped"
        logging.warning(text, batch.step + 1, metrics["loss"], metrics["norm/gradient"])
        self._bad.append({"step": batch.step + 1, "ids": batch.ids.tolist(), **_json(metrics)})
        if metrics["skipped_in_a_row"] >= self._max_bad_steps:
            self._give_up(batch)

    def _give_up(self, batch: PlacedBatch) -> None:
        path = self._workdir / "diverged.json"
        if jax.process_index() == 0:
            write_json(path, self._bad)
        shown = ", ".join(map(str, batch.ids[:8])) + (", ..." if len(batch.ids) > 8 else "")
        raise Diverged(
            f"loss or gradient was not finite in {self._max_bad_steps} steps in a row, the last being {batch.step + 1} "
            f"with examples {shown} (all in {path}); parameters and checkpoints are those of before: look at these "
            "examples, or lower the learning rate in another workdir"
        )


class _Profile:
    """A trace of a few steps for TensorBoard's profiler or Perfetto."""

    def __init__(self, directory: Path, at: int):
        self._directory, self._at = str(directory), at
        self._running = False

    def before(self, step: int) -> None:
        if self._at and step == self._at:
            jax.profiler.start_trace(self._directory)
            self._running = True

    def after(self, step: int, in_flight: _InFlight, last: bool) -> None:
        if self._running and (last or step == self._at + PROFILED_STEPS):
            in_flight.wait()
            jax.profiler.stop_trace()
            self._running = False
            _tell("profile of steps %d to %d in %s", self._at + 1, step, self._directory)


def _announce(spec: StateSpec, first_step: int, config: Mapping[str, Any], writer: MetricsWriter) -> None:
    """What will run, before it does."""
    task, settings, schedule = spec.task, spec.settings, spec.settings.schedule
    trained, frozen = map(parameter_count, spec.partition(spec.abstract_params))
    device = spec.mesh.devices.flat[0]
    _tell(
        "%s: %d steps (%.4g epochs) of %d examples on %d x %s in %d process(es), mesh data=%d fsdp=%d, %s",
        task.name,
        task.num_steps,
        task.num_steps / task.steps_per_epoch,
        task.batch_size,
        spec.mesh.size,
        device.device_kind,
        jax.process_count(),
        spec.mesh.shape["data"],
        spec.mesh.shape["fsdp"],
        settings.dtype,
    )
    _tell(
        "%s parameters trained, %s frozen; the state takes %s of each device",
        f"{trained:,}",
        f"{frozen:,}",
        size(spec.bytes_per_device()),
    )
    peak = schedule.peak(task.batch_size)
    how = "peak_lr" if schedule.base_lr is None else f"base_lr {schedule.base_lr:g} x batch {task.batch_size} / 256"
    _tell("learning rate: %s, peak %.4g (%s)", schedule.kind, peak, how)
    _tell("resuming from step %d" if first_step else "starting at step %d", first_step)
    if settings.log.notes:
        _tell("notes: %s", settings.log.notes)
    writer.write_run(spec.abstract_params, config, settings.log.notes)


def _tell(text: str, *arguments: Any) -> None:
    """Progress, from the first process only."""
    if jax.process_index() == 0:
        logging.info(text, *arguments, stacklevel=2)


def _run_ahead(spec: StateSpec) -> int:
    # Collectives of several steps at once can deadlock on the CPU backend of jax 0.10.
    several_cpus = spec.mesh.devices.flat[0].platform == "cpu" and spec.mesh.size > 1
    return 0 if several_cpus else RUN_AHEAD


def _json(metrics: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if np.isfinite(value) else None for name, value in metrics.items()}
