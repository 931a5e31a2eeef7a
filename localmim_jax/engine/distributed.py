"""Several processes as one run, through `jax.distributed`. One process with any number of devices does not need it."""

import importlib.util
import os
from collections.abc import Mapping

import jax
from absl import logging

from localmim_jax.errors import ConfigError

_LAUNCHERS = {"SLURM": "SLURM_STEP_NUM_TASKS", "Open MPI": "OMPI_COMM_WORLD_SIZE", "MPI": "PMI_SIZE"}
_TPU = "a TPU slice"


def initialize(
    coordinator_address: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins the other processes of the run, if the arguments or the environment name any.

    Without arguments: JAX_COORDINATOR_ADDRESS with JAX_NUM_PROCESSES and JAX_PROCESS_ID; or a launcher, see
    `launched_by`, from which jax takes the rest. Must run before any other use of jax; a second call does nothing.

    Args:
        coordinator_address: host:port of process 0.
        num_processes: number of processes.
        process_id: index of this process, from 0.

    Raises:
        ConfigError: some of the three are missing, the processes do not find each other, or jax was used before.
    """
    address = coordinator_address or os.environ.get("JAX_COORDINATOR_ADDRESS")
    count = _number(num_processes, os.environ, "JAX_NUM_PROCESSES")
    index = _number(process_id, os.environ, "JAX_PROCESS_ID")
    if jax.distributed.is_initialized():
        return
    given = [value is not None for value in (address, count, index)]
    has_libtpu = importlib.util.find_spec("libtpu") is not None
    launcher = "" if all(given) else launched_by(os.environ, getattr(jax.config, "jax_platforms", None), has_libtpu)
    if not any(given) and not launcher:
        return
    if any(given) and not all(given) and not launcher:
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
        if "must be called before" in reason:
            # A TPU's runtime knows its hosts without `jax.distributed`.
            if launcher == _TPU and not any(given) and jax.process_count() == 1:
                return
            raise ConfigError(
                "jax was used in this process before the run began, so it cannot join the run's other processes: call "
                "localmim_jax.train, or jax.distributed.initialize(), before anything else of jax"
            ) from error
        if launcher:
            raise ConfigError(
                f"the environment says that {launcher} started several processes, and they did not find each other "
                f"({reason}): give --coordinator_address, --num_processes and --process_id, or for a run of one "
                "process unset the launcher's variables"
            ) from error
        raise ConfigError(f"the processes of this run did not find each other ({reason}); check the address") from error
    logging.info("process %d of %d", jax.process_index(), jax.process_count())


def launched_by(environ: Mapping[str, str], platforms: str | None, has_libtpu: bool) -> str:
    """What started this process as one of several, for messages; "" where nothing says so.

    SLURM, Open MPI or another MPI with more than one task; or a TPU slice of more than one host, by the variables of
    Kubernetes. On other TPU machines only the metadata server knows the hosts, so jax has to ask it.

    Args:
        environ: the environment after jax was imported: where jax finds no TPU chips, it sets TPU_SKIP_MDS_QUERY.
        platforms: `jax.config.jax_platforms`; None or "" for any.
        has_libtpu: whether the runtime for TPUs is installed, as it also is for `localmim plan`.

    Raises:
        ConfigError: a variable that should be a number is none.
    """
    for launcher, variable in _LAUNCHERS.items():
        if (_number(None, environ, variable) or 1) > 1:
            return launcher
    if not has_libtpu or "tpu" not in (platforms or "tpu"):
        return ""
    if environ.get("TPU_PROCESS_ADDRESSES_PATH"):  # read by jax 0.12
        return _TPU
    hosts = environ.get("TPU_PROCESS_ADDRESSES", environ.get("TPU_WORKER_HOSTNAMES"))
    if hosts is None:
        return "" if "TPU_SKIP_MDS_QUERY" in environ else _TPU
    slices = _number(None, environ, "MEGASCALE_NUM_SLICES") or 1
    return _TPU if len(hosts.split(",")) * slices > 1 else ""


def _number(argument: int | None, environ: Mapping[str, str], variable: str) -> int | None:
    text = environ.get(variable)
    if argument is not None or not text:
        return argument
    if not text.isdecimal():
        raise ConfigError(f"the environment variable {variable} is {text!r}; it must be a number")
    return int(text)
