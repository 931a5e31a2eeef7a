"""Reports from the metrics of single steps: averages, speed, memory, progress."""

import contextlib
import dataclasses
import resource
import sys
import time
from collections.abc import Iterator, Mapping

import jax
import numpy as np

from localmim_jax.engine.flops import peak_flops

# Reported by their last value instead of their mean.
_COUNTED = ("skipped_steps", "skipped_in_a_row", "learning_rate", "loss_scale")


@dataclasses.dataclass(frozen=True)
class RunSize:
    """The quantities that progress and speed refer to. `dtype` is the compute dtype, `batch_size` is global."""

    num_steps: int
    steps_per_epoch: float
    batch_size: int
    num_devices: int
    dtype: str


class Meter:
    """Collects the steps between two reports, and their time without pauses (evaluation, saving).

    Args:
        size: size of the whole run.
        device_hours: device hours of the run before this start.
    """

    def __init__(self, size: RunSize, device_hours: float = 0.0):
        self._size = size
        self._flops = 0.0
        self._steps: list[Mapping[str, float]] = []
        self._device_hours = device_hours
        self._born = self._since = time.perf_counter()
        self._cpu = time.process_time()
        self._waited = 0.0
        self._speed: float | None = None

    def start(self, flops_per_step: float, waited: float) -> None:
        """Starts the clock, after compilation.

        Args:
            flops_per_step: FLOPs of the model for the global batch.
            waited: seconds that were spent waiting for data before.
        """
        self._flops = flops_per_step
        self._since, self._waited, self._cpu = time.perf_counter(), waited, time.process_time()

    def add(self, metrics: Mapping[str, float]) -> None:
        """Adds the metrics of one step, see `engine.step`."""
        self._steps.append(metrics)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The time inside does not count as training time."""
        start, cpu = time.perf_counter(), time.process_time()
        yield
        self._since += time.perf_counter() - start
        self._cpu += time.process_time() - cpu

    def report(self, step: int, waited: float) -> dict[str, float]:
        """Scalars of the steps since the last report. All of them are finished on the devices.

        Args:
            step: number of steps finished.
            waited: seconds spent waiting for data since the run started.

        Returns:
            The steps' own metrics averaged over those that were not skipped, and
            "progress/epoch"; "speed/steps_per_second"; "speed/images_per_second" (global); "speed/data_wait"
            (fraction of the time, 0..1); "speed/cpu_seconds_per_step" (of this process, over its cores, which is what a
            run on a shared CPU costs); "speed/teraflops" (of the model, per second, on all devices) and
            "speed/peak_fraction" (0..1) where the device's peak is known; "memory/device_gib" and
            "memory/device_peak_gib" where the backend provides them; "memory/host_peak_gib"; "time/device_hours" (of
            the whole run, summed over devices); "time/left_seconds".
        """
        now = time.perf_counter()
        seconds = max(now - self._since, 1e-9)
        speed = len(self._steps) / seconds
        # A moving average, so that the estimate of the remaining time does not jump.
        self._speed = speed if self._speed is None else 0.7 * self._speed + 0.3 * speed
        hours = self._device_hours + (now - self._born) * self._size.num_devices / 3600
        flops = self._flops * speed
        scalars = _averages(self._steps)
        scalars |= {
            "progress/epoch": step / self._size.steps_per_epoch,
            "speed/steps_per_second": speed,
            "speed/images_per_second": speed * self._size.batch_size,
            "speed/data_wait": min((waited - self._waited) / seconds, 1.0),
            "speed/cpu_seconds_per_step": (time.process_time() - self._cpu) / max(len(self._steps), 1),
            "speed/teraflops": flops / 1e12,
            "time/device_hours": hours,
            "time/left_seconds": (self._size.num_steps - step) / self._speed if self._speed else 0.0,
        }
        peak = peak_flops(jax.devices()[0].device_kind, self._size.dtype)
        if peak is not None:
            scalars["speed/peak_fraction"] = flops / (peak * self._size.num_devices)
        scalars |= memory()
        self._steps = []
        self._since, self._waited, self._cpu = now, waited, time.process_time()
        return scalars

    def line(self, step: int, scalars: Mapping[str, float]) -> str:
        """A report as one line for the console."""
        own = [name for name in scalars if "/" not in name and name not in ("loss", "skipped", *_COUNTED)]
        images = scalars["speed/images_per_second"]
        parts = [
            f"step {step:>{len(str(self._size.num_steps))}}/{self._size.num_steps}",
            f"epoch {scalars['progress/epoch']:.2f}",
            *(f"{name} {scalars[name]:.4f}" for name in ("loss", *own)),
            f"lr {scalars['learning_rate']:.2e}",
            f"{images:,.0f} images/s" if images >= 100 else f"{images:.3g} images/s",
            f"data wait {scalars['speed/data_wait']:.0%}",
        ]
        if "speed/peak_fraction" in scalars:
            parts.append(f"{scalars['speed/peak_fraction']:.0%} of peak")
        if scalars["skipped_steps"]:
            parts.append(f"skipped {scalars['skipped_steps']:.0f}")
        if step < self._size.num_steps:
            parts.append(f"{duration(scalars['time/left_seconds'])} left")
        return "  ".join(parts)


def memory() -> dict[str, float]:
    """Memory of the first local device (where the backend provides it) and of this process, in GiB."""
    stats = jax.local_devices()[0].memory_stats() or {}
    names = {"bytes_in_use": "memory/device_gib", "peak_bytes_in_use": "memory/device_peak_gib"}
    found = {name: stats[key] / 2**30 for key, name in names.items() if key in stats}
    unit = 1 if sys.platform == "darwin" else 1024
    return found | {"memory/host_peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30}


def duration(seconds: float) -> str:
    """ "42 s", "3 min 20 s", "5 h 03 min", "2 d 04 h"."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    if seconds < 86400:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    return f"{seconds // 86400} d {seconds % 86400 // 3600:02d} h"


def size(count: float) -> str:
    """A number of bytes as "12.3 MiB"."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.4g} GiB"


def _averages(steps: list[Mapping[str, float]]) -> dict[str, float]:
    """Means over the steps that were not skipped; NaN where all were."""
    good = [metrics for metrics in steps if not metrics["skipped"]]
    averages = {}
    for name in steps[-1]:
        if name in _COUNTED:
            averages[name] = steps[-1][name]
        elif name == "skipped":
            averages[name] = float(len(steps) - len(good))
        else:
            averages[name] = float(np.mean([metrics[name] for metrics in good])) if good else float("nan")
    return averages
