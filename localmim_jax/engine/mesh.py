"""Placement of arrays: a (data, fsdp) mesh, batches split over both axes, parameters over fsdp by a rule on shapes.

Modules do not depend on it. The compiler derives every collective from the placement of the state and the batch.
"""

import contextlib
import contextvars
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from localmim_jax.engine.settings import MeshSettings
from localmim_jax.errors import ConfigError

BATCH_AXES = ("data", "fsdp")
MIN_SHARDED_SIZE = 2**12  # elements; gathering smaller arrays costs more than keeping a copy of them

_TARGET: contextvars.ContextVar[tuple[jax.Device, ...]] = contextvars.ContextVar("target", default=())


def run_devices() -> Sequence[jax.Device]:
    """The devices that a run is built for: all of all processes, or those of `on_devices`."""
    return _TARGET.get() or jax.devices()


@contextlib.contextmanager
def on_devices(target: Sequence[jax.Device]) -> Iterator[None]:
    """Within it, runs are built for these devices, which need not exist: their kind decides what "auto" means."""
    token = _TARGET.set(tuple(target))
    try:
        yield
    finally:
        _TARGET.reset(token)


def make_mesh(settings: MeshSettings, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh over these devices (default: all that the run is built for).

    Devices stay grouped by process. So the global batch is the concatenation of the processes' batches, and fsdp groups
    lie within a host where they fit.

    Raises:
        ConfigError: the sizes do not multiply to the number of devices.
    """
    devices = sorted(run_devices() if devices is None else devices, key=lambda d: (d.process_index, d.id))
    count = len(devices)
    data = settings.data if settings.data > 0 else max(1, count // settings.fsdp)
    fsdp = settings.fsdp if settings.fsdp > 0 else max(1, count // data)
    if data * fsdp != count:
        raise ConfigError(
            f"mesh: data={settings.data} x fsdp={settings.fsdp} does not cover {count} device{'s' * (count > 1)}; set "
            "one to -1 and let the other divide that number"
        )
    return Mesh(np.asarray(devices).reshape(data, fsdp), BATCH_AXES, axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """First axis split over all devices."""
    return NamedSharding(mesh, P(BATCH_AXES))


def state_shardings(mesh: Mesh, abstract_state: Any) -> Any:
    """The sharding of each array of a state: along its largest dimension that the fsdp axis divides, if it is large."""
    return jax.tree.map(lambda leaf: NamedSharding(mesh, _spec(leaf.shape, mesh.shape["fsdp"])), abstract_state)


def whole(tree: Any, shardings: Any) -> Any:
    """The arrays of these shardings, each on all devices; their gradients go back to the devices that hold the parts.

    Without it XLA may leave a parameter in parts, split the features of activations to fit it, and send activations
    between the devices instead of parameters.
    """

    def gather(leaf: jax.Array, sharding: NamedSharding) -> jax.Array:
        if sharding.is_fully_replicated:
            return leaf
        everywhere = NamedSharding(sharding.mesh, P())
        gathered = jax.custom_vjp(lambda x: jax.lax.with_sharding_constraint(x, everywhere))
        gathered.defvjp(
            lambda x: (jax.lax.with_sharding_constraint(x, everywhere), None),
            lambda _, gradient: (jax.lax.with_sharding_constraint(gradient, sharding),),
        )
        return gathered(leaf)

    return jax.tree.map(gather, tree, shardings)


def _spec(shape: tuple[int, ...], fsdp: int) -> P:
    divisible = [axis for axis, size in enumerate(shape) if size % fsdp == 0]
    if fsdp == 1 or not divisible or math.prod(shape) < MIN_SHARDED_SIZE:
        return P()
    axis = max(divisible, key=lambda axis: shape[axis])
    return P(*(None,) * axis, "fsdp")


def place_batch(mesh: Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Global arrays from each host's part of a batch, without "id", which only the host uses.

    64-bit numbers become 32-bit numbers.
    """
    sharding = batch_sharding(mesh)

    def place(array: np.ndarray) -> jax.Array:
        array = np.asarray(array, jax.dtypes.canonicalize_dtype(array.dtype))
        return jax.make_array_from_process_local_data(sharding, array)

    return {name: place(array) for name, array in batch.items() if name != "id"}


def abstract_batch(mesh: Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes, dtypes and shardings of the arrays that `place_batch` returns."""
    processes = len({device.process_index for device in mesh.devices.flat})
    return {
        name: jax.ShapeDtypeStruct(
            (array.shape[0] * processes, *array.shape[1:]),
            jax.dtypes.canonicalize_dtype(array.dtype),
            sharding=batch_sharding(mesh),
        )
        for name, array in batch.items()
        if name != "id"
    }


def place_state(tree: Any, shardings: Any) -> Any:
    """Global arrays from host arrays that are equal on every process."""

    def place(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(place, tree, shardings)


def gather(tree: Any) -> Any:
    """Whole numpy arrays on every process from global arrays. A collective: every process must call it."""
    return jax.tree.map(
        lambda leaf: np.asarray(leaf) if leaf.is_fully_addressable else process_allgather(leaf, tiled=True), tree
    )
