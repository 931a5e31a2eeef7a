"""Several processes as one run, through `jax.distributed`. One process with any number of devices does not need it."""

import importlib.util
import os

import jax
from absl import logging

from localmim_jax.errors import ConfigError


def initialize(
    coordinator_address: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins the other processes of the run, if the arguments or the environment name any.

    Without arguments: JAX_COORDINATOR_ADDRESS with JAX_NUM_PROCESSES and JAX_PROCESS_ID; SLURM or Open MPI with more
    than one task; a TPU machine. jax detects the rest. Must run before any other use of jax; a second
    call does nothing.

    Args:
        coordinator_address: host:port of process 0.
        num_processes: number of processes.
        process_id: index of this process, from 0.

    Raises:
        ConfigError: some of the three are missing, or the processes do not find each other.
    """
    address = coordinator_address or os.environ.get("JAX_COORDINATOR_ADDRESS")
    count = _number(num_processes, "JAX_NUM_PROCESSES")
    index = _number(process_id, "JAX_PROCESS_ID")
    if jax.distributed.is_initialized():
        return
    given = [value is not None for value in (address, count, index)]
    if not any(given) and not _launched_as_several():
        return
    if any(given) and not all(given) and not _launched_as_several():
        raise ConfigError(
            "several processes need all of --coordinator_address (host:port of process 0), --num_processes and "
            f"--process_id; given are {address}, {count} and {index}"
        )
    if count is not None and index is not None and not 0 <= index < count:
        raise ConfigError(f"--process_id is {index}; with --num_processes={count} it must be from 0 to {count - 1}")
    try:
        jax.distributed.initialize(address, count, index)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"the processes of this run did not find each other ({reason}); check the address") from error
    logging.info("process %d of %d", jax.process_index(), jax.process_count())


def _number(argument: int | None, variable: str) -> int | None:
    text = os.environ.get(variable)
    if argument is not None or text is None:
        return argument
    if not text.isdecimal():
        raise ConfigError(f"the environment variable {variable} is {text!r}; it must be a number")
    return int(text)


def _launched_as_several() -> bool:
    """Whether a launcher known to jax started this process as one of several, or this is a TPU machine."""
    tasks = max(int(os.environ.get(name, 1)) for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"))
    platforms = os.environ.get("JAX_PLATFORMS", "tpu")
    return tasks > 1 or ("tpu" in platforms and importlib.util.find_spec("libtpu") is not None)
