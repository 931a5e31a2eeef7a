"""The least time that a compiled step can take: every kernel at the device's bandwidth or at its peak."""

import dataclasses
from collections.abc import Iterable

from localmim_jax.planning.hardware import Device, Hardware
from localmim_jax.planning.program import Collective, Kernel, Work

# The floor over the measured time where a step was timed, docs/planning.md: 70.5 ms of 134.4.
REACHED = 0.52
REACHED_ON = "ViT-B pre-training on an H200"


@dataclasses.dataclass(frozen=True)
class Part:
    """What the kernels of a part of the model do in a step: bytes moved (padding among them), FLOPs, floor seconds."""

    name: str
    kernels: int
    bytes: int
    padding: int
    flops: float
    seconds: float


def kernel_seconds(kernel: Kernel, device: Device, compute_dtype: str) -> float:
    """max(bytes / bandwidth, FLOPs / peak) of all its runs in a step."""
    names = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}
    dtype = names.get(kernel.dtype, compute_dtype)
    peak = device.peak.get(dtype) or device.peak["float32"]  # a V100 has no bfloat16, and computes in float32
    return kernel.times * max(kernel.bytes / device.bandwidth, kernel.flops / peak)


def parts(kernels: Iterable[Kernel], device: Device, compute_dtype: str) -> list[Part]:
    """The parts of the model, the longest first."""
    found: dict[str, list[Kernel]] = {}
    for kernel in kernels:
        found.setdefault(kernel.part, []).append(kernel)
    summed = [
        Part(
            name,
            sum(k.times for k in group),
            sum(k.times * k.bytes for k in group),
            sum(k.times * k.padding for k in group),
            sum(k.times * k.flops for k in group),
            sum(kernel_seconds(k, device, compute_dtype) for k in group),
        )
        for name, group in found.items()
    ]
    return sorted(summed, key=lambda part: -part.seconds)


def link_seconds(collective: Collective, hardware: Hardware) -> float:
    """Seconds of all its runs in a step, at the full rate of the slowest link that it crosses."""
    device = hardware.device
    rate = device.link if collective.group <= hardware.per_host else device.network
    return collective.times * collective.traffic / rate


def floor_seconds(work: Work, hardware: Hardware, compute_dtype: str) -> tuple[float, float]:
    """(seconds of the kernels, seconds of the links). A step takes at least the larger: they may overlap."""
    kernels = sum(kernel_seconds(kernel, hardware.device, compute_dtype) for kernel in work.kernels)
    return kernels, sum(link_seconds(collective, hardware) for collective in work.collectives)
