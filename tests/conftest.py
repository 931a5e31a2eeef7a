"""Strict settings shared by every test. Environment variables are set before jax is imported."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("NPROC", "32")  # jax 0.10 can deadlock on several fake devices with a small thread pool
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from pathlib import Path

import jax
import pytest
from absl import flags

jax.config.update("jax_numpy_rank_promotion", "raise")
if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # grain's worker processes read absl flags

GOLDENS = Path(__file__).parent / "goldens"


@pytest.fixture
def strict_dtypes():
    """No implicit dtype promotion: for masking, targets, losses, ops and float32 forwards."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture(scope="session")
def goldens() -> Path:
    """Numbers of the authors' release on tiny models; see goldens/README.md."""
    return GOLDENS
