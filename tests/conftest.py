"""Strict settings shared by every test. Environment variables are set before jax is imported."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("NPROC", "32")  # jax 0.10 can deadlock on several fake devices with a small thread pool
# Eight fake devices; and half the compile time, which is most of the suite's, for slower code on tiny arrays.
_FLAGS = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAGS}"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# The same tiny steps are compiled again and again, by tests and by the processes that they start.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.abspath(".pytest_cache/jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")

import importlib
import logging
import shutil
from pathlib import Path

import jax
import pytest
from absl import flags
from jaxtyping import install_import_hook

from tests.typecheck import check_types

# Before anything of the packages is imported. Outside the tests the annotations cost nothing.
HOOKED = [
    *("localmim_jax.ops", "localmim_jax.models", "localmim_jax.method"),
    *(f"localmim_jax.detection.{name}" for name in ("anchors", "assign", "boxes", "fpn", "mask_rcnn", "nms")),
    *(f"localmim_jax.detection.{name}" for name in ("roi", "roi_align", "rpn")),
    *(f"localmim_jax.segmentation.{name}" for name in ("pixel_loss", "sliding", "upernet")),
]
install_import_hook(HOOKED, f"{check_types.__module__}.{check_types.__name__}")

jax.config.update("jax_numpy_rank_promotion", "raise")
if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # grain's worker processes read absl flags

GOLDENS = Path(__file__).parent / "goldens"


@pytest.fixture(autouse=True)
def restored_log_level():
    """No test changes what another one finds in the log: the commands and TFDS set the level of absl's logger."""
    logger = logging.getLogger("absl")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture
def strict_dtypes():
    """No implicit dtype promotion: for masking, targets, losses, ops and float32 forwards."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture(scope="session")
def goldens() -> Path:
    """Numbers of the authors' release on tiny models; see goldens/README.md."""
    return GOLDENS


@pytest.fixture(scope="session")
def torch():
    """For tests that are marked so; imported at the first one."""
    return importlib.import_module("torch")


@pytest.fixture(scope="session")
def timm(torch):
    from tests import torchvision

    torchvision.declare_operators()
    return importlib.import_module("timm")


@pytest.fixture(scope="session")
def transformers(torch):
    from tests import torchvision

    torchvision.declare_operators()
    return importlib.import_module("transformers")


@pytest.fixture(scope="session")
def two_steps(tmp_path_factory) -> Path:
    """A run directory with checkpoints 1 and 2, not to be changed."""
    from tests.checkpoints import write_steps

    run = tmp_path_factory.mktemp("run")
    write_steps(run / "checkpoints", [1, 2])
    return run


@pytest.fixture(scope="session")
def small_run(tmp_path_factory) -> Path:
    """A ViT of 32 x 32 px pre-trained for three steps on photographs in memory, not to be changed."""
    import localmim_jax
    from tests.own_data import photographs, small_config
    from tests.training import first_devices

    run = tmp_path_factory.mktemp("small") / "run"
    with first_devices(1):
        localmim_jax.train(small_config(), run, dataset=photographs(8))
    return run


@pytest.fixture
def workdir(two_steps, tmp_path) -> Path:
    """A copy of it, to be damaged."""
    return shutil.copytree(two_steps, tmp_path / "run")
