"""Imports run downward only: every package has a rank, and a file imports its own package and lower ranks alone."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "localmim_jax"

# From the bottom to the top; packages in one line do not import each other.
RANKS = (
    ("errors", "faults", "process", "text"),
    ("files", "params", "ops", "configs"),
    ("recipes",),
    ("models",),
    ("method",),
    ("convert", "data", "engine"),
    ("evals",),
    ("tasks",),
    ("segmentation", "detection"),
    ("build",),
    ("api",),
    ("planning",),
    ("analysis", "bench"),
    ("cli",),
    ("__main__", "train"),
)
RANK = {name: rank for rank, names in enumerate(RANKS) for name in names}
ONLY = {
    "evals": {"errors", "ops", "engine.task"},
    "data": {"errors", "faults"},
    "engine": {"errors", "faults", "files", "params"},
}
NUMPY_AND_JAX = frozenset({"optax", "orbax", "clu", "grain", "tensorflow", "ml_collections"})
WITHOUT = {  # libraries that a package does without
    "errors": {"jax", "numpy"},
    "files": {"jax", "numpy"},
    "recipes": {"jax", "flax", "tensorflow"},
    "ops": NUMPY_AND_JAX | {"flax"},
    "models": NUMPY_AND_JAX,
    "method": NUMPY_AND_JAX,
    "data": {"jax", "flax", "optax", "orbax", "clu"},
    "evals": {"flax", "optax", "orbax", "clu", "grain"},
    "engine": {"grain", "tensorflow_datasets", "ml_collections"},
}
METHOD_WITHOUT_FLAX = ("method/masking.py", "method/targets.py", "method/losses.py")


def imported(source: str) -> Iterator[str]:
    """Every module that a file names in an import statement, at its top or inside a function."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package_of(path: str) -> str:
    """ "models" for "models/vit.py", "api" for "api.py"."""
    return path.split("/")[0].removesuffix(".py")


def offenses(path: str, source: str) -> list[str]:
    """What the file at this path (relative to the package) imports against the rules."""
    package = package_of(path)
    found = []
    for name in imported(source):
        top, _, inside = name.partition(".")
        wrong = top in WITHOUT.get(package, ()) or (top in ("torch", "timm") and path != "convert/torch_io.py")
        wrong |= top == "flax" and path in METHOD_WITHOUT_FLAX
        wrong |= top in ("main", "configs", "tests")
        wrong |= name.startswith("localmim_jax.configs") and package != "recipes"  # recipes are looked up by name
        if top == PACKAGE and inside and inside != "__version__" and path != "__init__.py":
            other = inside.split(".")[0]
            allowed = ONLY.get(package)
            legal = RANK.get(other, len(RANKS)) < RANK.get(package, len(RANKS))
            if allowed is not None:
                legal = any(f"{inside}.".startswith(f"{part}.") for part in allowed)
            wrong |= other != package and not legal
        if wrong:
            found.append(f"{path} imports {name}")
    return found


def package_files() -> list[str]:
    return sorted(path.relative_to(ROOT / PACKAGE).as_posix() for path in (ROOT / PACKAGE).rglob("*.py"))


def test_every_package_has_a_rank():
    assert {package_of(path) for path in package_files()} - {"__init__"} == set(RANK)


def test_imports_run_downward_only():
    found = [offense for path in package_files() for offense in offenses(path, (ROOT / PACKAGE / path).read_text())]
    assert found == []


def test_no_files_import_each_other_in_a_circle():
    modules = {}
    for path in package_files():
        modules[f"{PACKAGE}/{path}".removesuffix(".py").removesuffix("/__init__").replace("/", ".")] = path
    graph = {}
    for module, path in modules.items():
        names = imported((ROOT / PACKAGE / path).read_text())
        # "from package import module" and "from module import name" alike.
        graph[module] = {name if name in modules else name.rpartition(".")[0] for name in names} & set(modules)
        graph[module].discard(PACKAGE)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("engine/loop.py", "from localmim_jax import tasks"),
        ("engine/loop.py", "from localmim_jax.models.vit import ViT"),
        ("data/photos.py", "import jax.numpy as jnp"),
        ("models/vit.py", "def f():\n    from localmim_jax.method.decoders import Decoder"),
        ("method/masking.py", "from flax import nnx"),
        ("evals/knn.py", "from localmim_jax.tasks.pretrain import build"),
        ("evals/knn.py", "from localmim_jax.engine.loop import run"),
        ("tasks/pretrain.py", "from localmim_jax.cli import program"),
        ("detection/task.py", "from localmim_jax.segmentation import upernet"),
        ("analysis/layers.py", "from localmim_jax.bench import peak"),
        ("api.py", "from localmim_jax.analysis import plots"),
        ("convert/names.py", "import torch"),
        ("cli/dry_run.py", "from configs import quickstart"),
        ("cli/dry_run.py", "from localmim_jax.configs import quickstart"),
    ],
)
def test_an_upward_import_is_noticed(path, source):
    assert len(offenses(path, source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("tasks/pretrain.py", "from localmim_jax.engine.task import Task\nimport jax"),
        ("engine/step.py", "import jax\nfrom localmim_jax.params import Tree"),
        ("convert/torch_io.py", "import torch"),
        ("cli/program.py", "from localmim_jax import tasks"),
        ("segmentation/task.py", "from localmim_jax.tasks import inputs"),
    ],
)
def test_a_downward_import_is_fine(path, source):
    assert offenses(path, source) == []
