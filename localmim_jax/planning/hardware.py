"""The devices that a run can be planned for: memory, arithmetic, bandwidth and links of each kind.

Rates come from data sheets unless `measured` says otherwise. `docs/planning.md` explains what follows from them.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any, Literal

from localmim_jax.engine.flops import peak_flops
from localmim_jax.errors import ConfigError

GPUS_PER_HOST = 8
_TERA, _GIGA, _GIB = 1e12, 1e9, 2**30


@dataclasses.dataclass(frozen=True)
class Device:
    """One kind of device, as JAX counts devices.

    Attributes:
        kind: its name in full.
        platform: "cuda" or "tpu", as XLA names it.
        memory: bytes.
        bandwidth: of its memory, bytes/s.
        peak: dense FLOP/s of matrix products by the dtype of their factors, with float32 sums.
        link: bytes/s in one direction to the other devices of its host or slice.
        network: bytes/s in one direction to devices of other hosts, one card for each GPU assumed.
        measured: which of these rates were measured, and where; the others are the data sheet's.
        target_config: XLA's `GpuTargetConfigProto` of an NVIDIA GPU, as text.
        chip_config: libtpu's name of how a chip's cores are joined, where it is not the default.
        cores: cores of a TPU chip that the number in a slice's name counts.
        dimensions: of a TPU slice's grid.
    """

    kind: str
    platform: Literal["cuda", "tpu"]
    memory: int
    bandwidth: float
    peak: Mapping[str, float]
    link: float
    network: float
    measured: Mapping[str, str] = dataclasses.field(default_factory=dict)
    target_config: str = ""
    chip_config: str = ""
    cores: int = 1
    dimensions: int = 2


def _nvidia(
    kind: str,
    capability: str,
    *,
    memory: int,
    bandwidth: float,
    tf32: float,  # TFLOP/s of float32 products: TF32 where there is one
    measured_tflops: float | None = None,  # of 16-bit products
    link: float,
    network: float,
    sms: int,
    shared_memory: int,
    lanes: int,
    threads: int = 2048,
    l2: int,
    clock: float,
    measured: Mapping[str, str] | None = None,
) -> Device:
    """A GPU; the last sizes are those that XLA's compiler asks for: of a multiprocessor, the cache, and GHz."""
    major, minor = capability.split(".")
    text = f"""
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: {shared_memory} threads_per_core_limit: {threads} core_count: {sms} fpus_per_core: {lanes}
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: {int(bandwidth * _GIGA)} l2_cache_size: {l2} clock_rate_ghz: {clock}
  device_memory_size: {memory} shared_memory_per_block_optin: {shared_memory - (0 if major == "7" else 1024)}
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}}
platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 8 patch: 0 }}
runtime_version {{ major: 12 minor: 9 patch: 0 }} device_description_str: "{kind}" """
    fast = peak_flops(kind, "float16") if measured_tflops is None else measured_tflops * _TERA
    assert fast is not None, kind
    peak = {"float16": fast, "float32": tf32 * _TERA} | ({} if major == "7" else {"bfloat16": fast})
    return Device(
        kind=kind,
        platform="cuda",
        memory=memory,
        bandwidth=bandwidth * _GIGA,
        peak=peak,
        link=link * _GIGA,
        network=network * _GIGA,
        measured=measured or {},
        target_config=text,
    )


def _tpu(
    kind: str,
    *,
    memory: int,
    bandwidth: float,
    link: float,
    cores: int = 1,
    dimensions: int = 2,
    chip_config: str = "",
) -> Device:
    """A TPU chip. A float32 product is one pass in bfloat16 at JAX's default precision."""
    fast = peak_flops(kind, "bfloat16")
    assert fast is not None, kind
    peak = dict.fromkeys(("bfloat16", "float16", "float32"), fast)
    return Device(
        kind=kind,
        platform="tpu",
        memory=memory * _GIB,
        bandwidth=bandwidth * _GIGA,
        peak=peak,
        link=link * _GIGA,
        network=link * _GIGA,  # a slice is one network, whatever its hosts
        chip_config=chip_config,
        cores=cores,
        dimensions=dimensions,
    )


_HOPPER: dict[str, Any] = {"sms": 132, "shared_memory": 233472, "lanes": 128, "clock": 1.98, "link": 450, "network": 50}

# Bandwidths and links in GB/s; `engine.flops` has the peaks. NVIDIA: product pages and architecture papers. TPU:
# cloud.google.com/tpu/docs, a page for each version; its links are all of a chip's links together.
DEVICES = {
    "h200": _nvidia(
        "NVIDIA H200", "9.0", memory=150754820096, bandwidth=4800, tf32=494.7, measured_tflops=811, l2=62914560,
        **_HOPPER,
        measured={"peak": "the step's own matrix products, docs/benchmarks.md; float32 from the data sheet"},
    ),
    "h100": _nvidia(
        "NVIDIA H100 80GB HBM3", "9.0", memory=84942979072, bandwidth=3350, tf32=494.7, l2=52428800,
        **_HOPPER,
    ),
    "a100": _nvidia(
        "NVIDIA A100-SXM4-80GB", "8.0", memory=85094825984, bandwidth=2039, tf32=156, link=300,
        network=25, sms=108, shared_memory=167936, lanes=64, l2=41943040, clock=1.41,
    ),
    "l4": _nvidia(
        "NVIDIA L4", "8.9", memory=24152899584, bandwidth=300, tf32=60, link=32, network=12.5, sms=58,
        shared_memory=102400, lanes=128, threads=1536, l2=50331648, clock=2.04,
    ),
    "v100": _nvidia(
        "Tesla V100-SXM2-32GB", "7.0", memory=33554432000, bandwidth=900, tf32=15.7, link=150, network=12.5,
        sms=80, shared_memory=98304, lanes=64, l2=6291456, clock=1.53,
    ),
    "v4": _tpu("TPU v4", memory=32, bandwidth=1228, link=300, cores=2, dimensions=3, chip_config="megacore"),
    "v5e": _tpu("TPU v5 lite", memory=16, bandwidth=819, link=200),
    "v5p": _tpu("TPU v5", memory=95, bandwidth=2765, link=600, cores=2, dimensions=3),
    "v6e": _tpu("TPU v6 lite", memory=32, bandwidth=1640, link=400),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Hardware:
    """Devices of one kind, as many as a run would have.

    Attributes:
        name: as the user wrote it, in lower case.
        count: devices.
        topology: XLA's name of their arrangement: slices x hosts x devices for GPUs, the grid of chips for TPUs.
        per_host: devices that `device.link` joins.
    """

    name: str
    device: Device
    count: int
    topology: str
    per_host: int


def parse(text: str) -> Hardware:
    """The hardware of a name: h100, h100x8, a100x16, tpu-v4-8, v5e-16, v5p-8, v6e-8.

    The number of a TPU slice is that of Google's names: chips of v5e and v6e, and two for each chip of v4 and v5p.

    Raises:
        ConfigError: there is no such device, or no such number of them.
    """
    name = text.strip().lower()
    gpu = re.fullmatch(r"([a-z]+\d+)(?:x(\d+))?", name)
    tpu = re.fullmatch(r"(?:tpu-)?(v\d+[a-z]*)-(\d+)", name)
    if gpu and (device := DEVICES.get(gpu[1])) and device.platform == "cuda":
        count = int(gpu[2] or 1)
        hosts = max(1, count // GPUS_PER_HOST)
        if count < 1 or (count > GPUS_PER_HOST and count % GPUS_PER_HOST):
            raise ConfigError(f"--hardware={text}: 1 to {GPUS_PER_HOST} GPUs, or whole hosts of {GPUS_PER_HOST}")
        per_host = count // hosts
        return Hardware(name, device, count, f"1x{hosts}x{per_host}", per_host)
    if tpu and (device := DEVICES.get(tpu[1])) and device.platform == "tpu":
        cores = int(tpu[2])
        grid = _grid(cores // device.cores, device.dimensions) if cores % device.cores == 0 else None
        if grid is None:
            sizes = [str(device.cores * 2**i) for i in range(11) if _grid(2**i, device.dimensions)]
            raise ConfigError(f"--hardware={text}: a {tpu[1]} slice has one of {', '.join(sizes)} in its name")
        count = math.prod(grid)
        return Hardware(name, device, count, f"{tpu[1]}:{'x'.join(map(str, grid))}", count)
    gpus = ", ".join(name for name, device in DEVICES.items() if device.platform == "cuda")
    tpus = ", ".join(f"{name}-8" for name, device in DEVICES.items() if device.platform == "tpu")
    raise ConfigError(
        f"--hardware={text}: no such hardware; take one of {gpus}, several as in h100x8, or one of {tpus}"
    )


def _grid(chips: int, dimensions: int) -> tuple[int, ...] | None:
    """The grid of a TPU slice: powers of two that grow in turn from the last dimension, at least 2 x 2 in 3-D."""
    if chips < 1 or chips & (chips - 1) or (dimensions == 3 and chips < 4) or (dimensions == 2 and chips in (2,)):
        return None
    if dimensions == 2:
        if chips > 256:
            return None
        small = 2 ** (int(math.log2(chips)) // 2)
        return small, chips // small
    sides = [2, 2, 1]
    while math.prod(sides) < chips:
        smallest = min(sides)
        sides[max(i for i, side in enumerate(sides) if side == smallest)] *= 2
    return tuple(sorted(sides, reverse=True)) if min(sides) == 1 else tuple(sorted(sides))
