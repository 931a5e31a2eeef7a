"""Compiled programs are kept for the next run of the same user, with JAX's own cache."""

import os
from pathlib import Path

import jax
from absl import logging


def keep_programs() -> Path | None:
    """Turns JAX's compilation cache on, for GPUs and TPUs; the directory, None where it stays as it is.

    A resumed run then starts at once. On GPUs it also has the kernels that were chosen by timing them at the first
    start, so that it computes the same bits. JAX's variables come first: JAX_COMPILATION_CACHE_DIR names another
    directory, and JAX_ENABLE_COMPILATION_CACHE=false turns the cache off. CPU programs compile fast and may not run on
    another machine that shares the home directory, so there nothing is kept.
    """
    named, enabled = (
        getattr(jax.config, f"jax_{name}") for name in ("compilation_cache_dir", "enable_compilation_cache")
    )
    if named is not None or not enabled:
        return None
    folder = directory(jax.default_backend())
    if folder is not None:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        logging.info("compiled programs are kept in %s", folder)
    return folder


def directory(platform: str) -> Path | None:
    """Where the programs for "gpu" or "tpu" are kept; None for "cpu"."""
    if platform == "cpu":
        return None
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "localmim_jax" / "compiled"
