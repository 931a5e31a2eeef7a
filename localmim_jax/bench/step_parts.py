"""Where the time of a compiled step goes, by part of the model: profiled times of its kernels beside their counts."""

import collections
import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from localmim_jax.engine.state import StateSpec
from localmim_jax.engine.step import CompiledStep
from localmim_jax.planning import hlo, program

_DEVICES = "between devices"
_CONTROL = ("while", "call", "conditional", "tuple", "parameter")  # their time is that of the kernels inside


@dataclasses.dataclass(frozen=True)
class PartTime:
    """What one part of the model takes of a step, on one device.

    Attributes:
        part: the outermost named scope, as in `localmim plan`; "between devices" for collectives and "other" for
            kernels without a scope.
        backward: whether these kernels belong to the backward pass.
        seconds: of its kernels in a step. On a CPU several kernels can run at the same time.
        kernels, bytes, flops: counted in the program; bytes moved to and from memory, FLOPs of matrix products.
    """

    part: str
    backward: bool
    seconds: float
    kernels: int
    bytes: int
    flops: float


def measure_parts(spec: StateSpec, step: CompiledStep, batches: list[Any], steps: int) -> list[PartTime]:
    """Profiles so many steps of one compiled program; the longest parts first.

    Raises:
        RuntimeError: the profile has no kernel of this program.
    """
    work = program.work_of(hlo.parse(step.compiled.as_text() or ""))
    state, _ = jax.block_until_ready(step.run(spec.create(), batches[0]))
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            for i in range(steps):
                state, _ = jax.block_until_ready(step.run(state, batches[i % len(batches)]))
        seconds = _kernel_seconds(Path(folder))
    return by_part(work, {name: value / steps / spec.mesh.size for name, value in seconds.items()})


def by_part(work: program.Work, seconds: Mapping[str, float]) -> list[PartTime]:
    """Joins the kernels of a program with the seconds that each took, by name."""
    found: dict[tuple[str, bool], list[PartTime]] = collections.defaultdict(list)
    rest = dict(seconds)
    for kernel in work.kernels:
        time = rest.pop(kernel.name, 0.0)
        entry = PartTime(
            kernel.part,
            kernel.backward,
            time,
            kernel.times,
            kernel.times * kernel.bytes,
            kernel.times * kernel.flops,
        )
        found[kernel.part, kernel.backward].append(entry)
    for name, time in rest.items():
        if name.startswith(program.COLLECTIVES):
            found[_DEVICES, False].append(PartTime(_DEVICES, False, time, 1, 0, 0.0))
        elif not name.startswith(_CONTROL):
            found["other", False].append(PartTime("other", False, time, 1, 0, 0.0))
    summed = [
        PartTime(
            part,
            backward,
            sum(entry.seconds for entry in entries),
            sum(entry.kernels for entry in entries),
            sum(entry.bytes for entry in entries),
            sum(entry.flops for entry in entries),
        )
        for (part, backward), entries in found.items()
    ]
    return sorted(summed, key=lambda entry: -entry.seconds)


def _kernel_seconds(folder: Path) -> dict[str, float]:
    """Seconds by the name of the instruction, over all devices and steps of the profile in this folder."""
    seconds: dict[str, float] = collections.defaultdict(float)
    for file in folder.rglob("*.xplane.pb"):
        for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
            for line in plane.lines:
                for event in line.events:
                    name = dict(event.stats).get("hlo_op")
                    if name is not None:
                        seconds[str(name)] += event.duration_ns / 1e9
    if not seconds:
        raise RuntimeError("the profile has no kernel of the step; is another profiler running?")
    return seconds
