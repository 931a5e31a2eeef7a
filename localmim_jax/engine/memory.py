"""Memory of a training step, estimated before it is compiled, and compared with what each device has."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
from absl import logging

from localmim_jax.engine import mesh as meshes
from localmim_jax.engine.state import StateSpec, join
from localmim_jax.errors import ConfigError, out_of_memory_hint
from localmim_jax.params import merge

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Bytes that a step needs on each device, from its trace; XLA's fusion may need less.

    Attributes:
        state: parameters, optimizer state and moving averages.
        gradients: of a micro-batch, and their running sum.
        activations: kept from the forward pass for the backward pass.
        images: of a micro-batch, on each device.
    """

    state: float
    gradients: float
    activations: float
    images: int

    @property
    def total(self) -> float:
        return self.state + self.gradients + self.activations

    def __str__(self) -> str:
        parts = ("state", self.state), ("gradients", self.gradients), ("activations", self.activations)
        return " + ".join(f"{name} {size / GIB:.3g}" for name, size in parts)


def estimate(spec: StateSpec, example: Mapping[str, Any]) -> Estimate:
    """The memory of a step on examples with these shapes and dtypes, without the batch's own axis."""
    devices = spec.mesh.size
    images = spec.task.batch_size // spec.settings.accum_steps // devices
    sharding = meshes.batch_sharding(spec.mesh)

    def saved(count: int) -> float:
        batch = {
            name: jax.ShapeDtypeStruct((count, *array.shape), array.dtype, sharding=sharding)
            for name, array in example.items()
        }
        return _saved_for_backward(spec, batch) / devices

    trained, _ = spec.partition(spec.abstract["params"])
    copies = 1 if spec.settings.accum_steps == 1 else 2  # of one micro-batch, and their running sum
    gradients = copies * _bytes(trained) / spec.mesh.shape["fsdp"]
    # What the backward pass needs grows linearly with the batch; two traces tell slope and offset.
    return Estimate(spec.bytes_per_device(), gradients, saved(2 * devices * images) - saved(devices * images), images)


def device_limit(spec: StateSpec) -> int | None:
    """The memory of the smallest of this process's devices in bytes; None where the backend does not tell (CPUs)."""
    stats = [device.memory_stats() for device in spec.mesh.local_devices]
    limits = [found["bytes_limit"] for found in stats if found and found.get("bytes_limit")]
    return min(limits, default=None)


def check_state(spec: StateSpec) -> None:
    """Raises ConfigError where the state and the gradients alone do not fit, which no smaller batch changes."""
    limit = device_limit(spec)
    trained, _ = spec.partition(spec.abstract["params"])
    gradients = _bytes(trained) / spec.mesh.shape["fsdp"]
    state = spec.bytes_per_device()
    if limit is not None and state + gradients > limit:
        raise ConfigError(
            f"the state ({state / GIB:.3g} GiB) and the gradients ({gradients / GIB:.3g} GiB) do not fit into the "
            f"{limit / GIB:.3g} GiB of each device, whatever the batch: raise mesh.fsdp, which splits them over "
            "devices, or take a smaller model"
        )


def warn_before_compiling(spec: StateSpec, example: Mapping[str, Any]) -> Estimate | None:
    """Logs a warning where the estimate exceeds the devices' memory; returns the estimate, None on devices without."""
    limit = device_limit(spec)
    if limit is None:
        return None
    found = estimate(spec, example)
    if found.total > limit:
        logging.warning(
            "this step may not fit: about %.3g GiB a device (%s), and it has %.3g GiB; %s",
            *(found.total / GIB, found, limit / GIB, advice(spec, found, limit)),
        )
    return found


def check_compiled(spec: StateSpec, needed: int | None, found: Estimate | None) -> None:
    """Raises ConfigError where XLA's analysis of the compiled step exceeds the devices' memory, before it runs."""
    limit = device_limit(spec)
    if limit is not None and needed is not None and found is not None and needed > limit:
        raise ConfigError(
            f"the compiled step needs {needed / GIB:.3g} GiB of each device, which has {limit / GIB:.3g} GiB "
            f"(estimated: {found}); {advice(spec, found, limit)}"
        )


def explained(error: Exception, spec: StateSpec, found: Estimate | None) -> ConfigError | None:
    """An out-of-memory error of XLA as one line with the estimate and what to change; None for any other error."""
    hint = out_of_memory_hint(error)
    if hint is None or isinstance(error, MemoryError):
        return None
    what, _, _ = hint.partition(";")
    if found is None:
        return ConfigError(hint)
    limit = device_limit(spec)
    has = "" if limit is None else f", of {limit / GIB:.3g} GiB"
    text = f"{what}; estimated: {found.total / GIB:.3g} GiB a device ({found}){has}; {advice(spec, found, limit)}"
    return ConfigError(text)


def advice(spec: StateSpec, found: Estimate, limit: int | None) -> str:
    """What to change so that the step fits, with the accumulation that the estimate asks for where one is enough."""
    room = None if limit is None else limit - found.state - found.gradients
    enough = None
    if room is not None and room > 0 and found.activations > room:
        factor = math.ceil(found.activations / room)
        while factor <= found.images and found.images % factor:
            factor += 1
        enough = spec.settings.accum_steps * factor if factor <= found.images else None
    accumulate = "raise accum_steps" if enough is None else f"set accum_steps={enough}"
    return f"{accumulate}, set model.remat=true, lower batch_size, or raise mesh.fsdp"


def _saved_for_backward(spec: StateSpec, batch: dict[str, jax.ShapeDtypeStruct]) -> int:
    """Bytes that the forward pass keeps for the backward pass of one micro-batch."""

    def residuals(params: Any, model_state: Any, batch: Any) -> Any:
        trained, frozen = spec.partition(params)

        def loss(trained: Any) -> jax.Array:
            model = merge(spec.graphdef, join(trained, frozen), model_state)
            return spec.task.loss(model, batch, jax.random.key(0))[0]

        return jax.vjp(loss, trained)[1]

    return _bytes(jax.eval_shape(residuals, spec.abstract["params"], spec.abstract["model_state"], batch))


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
