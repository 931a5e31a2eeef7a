"""The training step of a config, compiled for devices that are not here."""

import contextlib
import dataclasses
import importlib.util
import os
import re
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import topologies
from ml_collections import ConfigDict

from localmim_jax.engine import mesh as meshes
from localmim_jax.engine.state import StateSpec
from localmim_jax.engine.step import peak_bytes, trace_step
from localmim_jax.errors import ConfigError
from localmim_jax.planning import inputs
from localmim_jax.planning.hardware import Hardware

# Kernels cannot be timed on a card that is not here. Triton's products are off as in the run that docs/benchmarks.md
# measured. The others save most of the time: they spare the choice between ways to emit a kernel, and the machine code,
# which nobody runs, and leave kernels and memory as they are.
GPU_OPTIONS = {
    "xla_gpu_autotune_level": "0",
    "xla_gpu_enable_triton_gemm": False,
    "xla_gpu_experimental_enable_fusion_autotuner": False,
    "xla_gpu_disable_gpuasm_optimizations": True,
    "xla_backend_optimization_level": "0",
}


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on each device while the step runs.

    Attributes:
        parameters, optimizer, other: of the state; "other" is the moving average, batch statistics and counters.
        batch: the arrays of a batch.
        temporaries: everything that lives within the step: activations, gradients, workspace.
        total: all of it, as XLA's buffer assignment has it.
    """

    parameters: int
    optimizer: int
    other: int
    batch: int
    temporaries: int
    total: int


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled step.

    Attributes:
        built: the config, its task and settings.
        example: (h, w) of the images of this program.
        seconds: to trace, lower and compile.
        memory: None where the compiler refused the program for want of memory.
        needed: bytes that the compiler said it would need where it refused.
        text: the optimized program; "" where it was refused, None where this jaxlib cannot read it.
    """

    built: inputs.Built
    example: tuple[int, int]
    seconds: float
    memory: Memory | None
    needed: int | None
    text: str | None


def require_compiler(hardware: Hardware) -> None:
    """Raises ConfigError where the compiler of this hardware is not installed."""
    gpu = hardware.device.platform == "cuda"
    names = ("jax_plugins.xla_cuda12", "jax_plugins.xla_cuda13") if gpu else ("libtpu",)
    for name in names:
        with contextlib.suppress(ModuleNotFoundError):
            if importlib.util.find_spec(name) is not None:
                return
    extra = "plan-gpu" if gpu else "plan-tpu"
    what = "NVIDIA GPUs" if gpu else "TPUs"
    raise ConfigError(
        f"--hardware={hardware.name}: the compiler for {what} is not installed; pip install 'localmim-jax[{extra}]', "
        f"in a clone pip install -c constraints.txt -e '.[{extra}]'"
    )


def devices_of(hardware: Hardware) -> Sequence[jax.Device]:
    """The devices of the hardware, to compile for.

    Raises:
        ConfigError: its compiler is not installed, or refuses the topology.
    """
    require_compiler(hardware)
    device = hardware.device
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # or libtpu waits for a TPU machine's metadata server
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # several plans at a time: none holds a TPU
    jax.devices()  # this finds the plug-ins
    if device.platform == "cuda":
        options = {"topology": hardware.topology, "target_config": device.target_config}
    else:
        options = {"chip_config_name": device.chip_config} if device.chip_config else {}
    try:
        found = topologies.get_topology_desc(
            platform=device.platform, topology_name=hardware.topology, **options
        ).devices
    except Exception as error:
        raise ConfigError(f"--hardware={hardware.name}: the compiler refuses it: {str(error)[:200]}") from error
    assert len(found) == hardware.count, (hardware.name, len(found))
    return found


def compile_for(config: ConfigDict, hardware: Hardware, devices: Sequence[jax.Device]) -> Iterator[Compiled]:
    """The config's step on these devices, one program for each shape that its batches have.

    Raises:
        ConfigError: a config that could not run on them.
    """
    with meshes.on_devices(devices):
        built = inputs.build(config)
        spec = StateSpec(built.task, built.settings, meshes.make_mesh(built.settings.mesh))
        built.settings.check_batch(built.task.batch_size, spec.mesh.size)
        for example in inputs.batch_shapes(built.config):
            batch = inputs.abstract_batch(spec, example, built.task.batch_size)
            yield _compile(built, spec, batch, hardware)


def _compile(built: inputs.Built, spec: StateSpec, batch: inputs.Example, hardware: Hardware) -> Compiled:
    start = time.perf_counter()
    lowered = trace_step(spec, batch).lower(lowering_platforms=(hardware.device.platform,))
    h, w = batch["image"].shape[1:3]
    try:
        with warnings.catch_warnings():  # such a program cannot be read back from a compilation cache
            warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
            compiled = lowered.compile(GPU_OPTIONS if hardware.device.platform == "cuda" else None)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return Compiled(built, (h, w), time.perf_counter() - start, None, _needed(str(error)), "")
    seconds = time.perf_counter() - start
    try:
        text = compiled.as_text()
    except jax.errors.JaxRuntimeError as error:  # jaxlib 0.10 on the async operations that libtpu makes for a v5p
        logging.warning("jaxlib cannot read the compiled program, so its work is not counted: %s", str(error)[:200])
        text = None
    return Compiled(built, (h, w), seconds, _memory(compiled.memory_analysis(), spec, batch), None, text)


def _memory(analysis: Any, spec: StateSpec, batch: inputs.Example) -> Memory:
    state = {name: _bytes_per_device(tree) for name, tree in spec.abstract.items()}
    parameters, optimizer = state.pop("params"), state.pop("opt_state")
    return Memory(
        parameters=parameters,
        optimizer=optimizer,
        other=sum(state.values()),
        batch=_bytes_per_device(batch),
        temporaries=analysis.temp_size_in_bytes,
        total=peak_bytes(analysis),
    )


def _bytes_per_device(tree: Any) -> int:
    return sum(
        int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)
    )


def _needed(message: str) -> int | None:
    """Bytes from "Used 20.5G of 15.75G hbm", or from "... allocate 123456 bytes"."""
    used = re.search(r"Used ([\d.]+)([KMGT]?) of", message)
    if used:
        return int(float(used[1]) * 1024 ** " KMGT".index(used[2] or " "))
    plain = re.search(r"(\d+) bytes", message)
    return int(plain[1]) if plain else None
