"""Imports run downward only. Each room names what it may import; anything else in the list below is refused."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "localmim_jax"

BASE = {"errors", "faults"}  # plain Python, for everybody
METHOD = {"ops", "masking", "targets", "losses"}
MODELS = {"backbones", "decoders", "heads"}
MAY_IMPORT = {
    "errors": set(),
    "faults": BASE,
    "params": BASE,
    **dict.fromkeys(METHOD, BASE | METHOD),
    **dict.fromkeys(MODELS, BASE | METHOD | MODELS | {"params"}),
    "localmim": BASE | METHOD | MODELS | {"params"},
    "convert": BASE | METHOD | MODELS | {"params", "localmim", "convert"},
    "data": BASE | {"data"},
    "evals": BASE | {"evals", "ops", "engine.task"},
    "engine": BASE | {"engine", "params"},
    "tasks": BASE | METHOD | MODELS | {"params", "localmim", "convert", "data", "evals", "engine", "tasks"},
}
WITHOUT = {  # packages that a room does without
    **{room: {"flax", "optax", "orbax", "clu", "grain", "tensorflow", "ml_collections"} for room in METHOD},
    **{room: {"optax", "orbax", "clu", "grain", "tensorflow", "ml_collections"} for room in MODELS | {"localmim"}},
    "data": {"jax", "flax", "optax", "orbax", "clu"},
    "evals": {"flax", "optax", "orbax", "clu", "grain"},
    "engine": {"grain", "tensorflow_datasets", "ml_collections"},
    "errors": {"jax", "numpy"},
}


def imported(source: str) -> Iterator[str]:
    """Every module that a file names in an import statement, at its top or inside a function."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def offences(path: str, source: str) -> list[str]:
    """What the file at this path (relative to the package) imports against the rules."""
    room = "commands" if path.endswith("__main__.py") else path.split("/")[0].removesuffix(".py")
    found = []
    for name in imported(source):
        top, _, inside = name.partition(".")
        legal = MAY_IMPORT.get(room, {inside}) | {"__version__"}
        if top == PACKAGE and inside and not any(f"{inside}.".startswith(f"{part}.") for part in legal):
            found.append(f"{path} imports {name}")
        if top in WITHOUT.get(room, ()) or (top in ("torch", "timm") and path != "convert/torch_io.py"):
            found.append(f"{path} imports {name}")
        if top in ("main", "configs", "tests"):
            found.append(f"{path} imports {name}")
    return found


def test_imports_run_downward_only():
    files = sorted((ROOT / PACKAGE).rglob("*.py"))
    assert len(files) > 20
    assert [
        offence for f in files for offence in offences(f.relative_to(ROOT / PACKAGE).as_posix(), f.read_text())
    ] == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("engine/loop.py", "from localmim_jax import tasks"),
        ("engine/loop.py", "from localmim_jax.backbones.vit import ViT"),
        ("data/photos.py", "import jax.numpy as jnp"),
        ("targets.py", "def f():\n    from localmim_jax.decoders import Decoder"),
        ("masking.py", "from flax import nnx"),
        ("evals/knn.py", "from localmim_jax.tasks.pretrain import build"),
        ("evals/knn.py", "from localmim_jax.engine.loop import run"),
        ("tasks/pretrain.py", "from localmim_jax.commands import cli"),
        ("convert/names.py", "import torch"),
        ("commands/dry_run.py", "from configs import common"),
    ],
)
def test_an_upward_import_is_noticed(path, source):
    assert len(offences(path, source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("tasks/pretrain.py", "from localmim_jax.engine.task import Task\nimport jax"),
        ("engine/step.py", "import jax\nfrom localmim_jax.params import Tree"),
        ("convert/torch_io.py", "import torch"),
        ("commands/cli.py", "from localmim_jax import tasks"),
    ],
)
def test_a_downward_import_is_fine(path, source):
    assert offences(path, source) == []
