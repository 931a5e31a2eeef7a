"""Recipes are found, whatever lies around, and become configs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from localmim_jax.errors import ConfigError
from localmim_jax.recipes.load import load_config

ROOT = Path(__file__).parents[1]
OWN = "from ml_collections import ConfigDict\n\ndef get_config():\n    return ConfigDict({'batch_size': 7})\n"
DERIVED = """from localmim_jax.configs import quickstart

def get_config():
    config = quickstart.get_config()
    config.batch_size = 9
    return config
"""


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A user's directory with a `configs` package of its own, as the current one."""
    (tmp_path / "user" / "configs").mkdir(parents=True)
    (tmp_path / "user" / "configs" / "__init__.py").write_text("raise ImportError('not this one')\n")
    (tmp_path / "user" / "configs" / "mine.py").write_text(OWN)
    (tmp_path / "user" / "configs" / "derived.py").write_text(DERIVED)
    monkeypatch.chdir(tmp_path / "user")
    return tmp_path / "user"


@pytest.mark.parametrize("name", ["quickstart", "quickstart.py", "configs/quickstart", "configs/quickstart.py"])
def test_a_recipe_is_found_by_its_name_in_every_spelling(name, outside):
    assert load_config(name).data.name == "digits"


@pytest.mark.parametrize("name", ["table1", "configs/table1.py"])
def test_a_recipes_argument_follows_a_colon(name, outside):
    assert load_config(f"{name}:vit_b_global_single").model.taps == (12,)


def test_a_users_own_configs_are_found_beside_ours(outside):
    assert load_config("configs/mine.py").batch_size == 7
    assert load_config("configs/derived.py").batch_size == 9


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("quickstrat", "recipe quickstrat not found; did you mean quickstart?"),
        ("quickstrat.py", "config file quickstrat.py not found; did you mean quickstart.py?"),
        ("configs/quickstrat", "config file configs/quickstrat not found; did you mean configs/quickstart?"),
        ("configs/mines.py", "config file configs/mines.py not found; did you mean configs/mine.py?"),
        ("tabel1:vit_b_global_single", "recipe tabel1 not found; did you mean table1?"),
        ("other/quickstart.py", "config file other/quickstart.py not found; did you mean configs/quickstart.py?"),
        ("parts", "recipe parts not found"),
        ("__init__", "recipe __init__ not found"),
        ("configs", "recipe configs not found"),
    ],
)
def test_an_unknown_name_is_told_the_nearest(name, expected, outside):
    with pytest.raises(ConfigError) as caught:
        load_config(name)
    assert str(caught.value).startswith(expected)


def load_in_a_process(python_path: Path, directory: Path) -> list[str]:
    """The batch sizes of `mine`, `derived` and a recipe, and the recipes' directory, in a fresh process."""
    program = """
import sys
from localmim_jax.recipes import load
for name in ("configs/mine.py", "configs/derived.py", "configs/quickstart"):
    print(load.load_config(name).batch_size)
print(load.find("quickstart"))
print("jax" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(python_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_checkout_has_its_own_recipes(tmp_path, outside):
    """Those of a copy, although another checkout is installed here."""
    for name in ("localmim_jax", "configs"):
        (tmp_path / "copy" / name).mkdir(parents=True)
        for path in (ROOT / name).iterdir():
            (tmp_path / "copy" / name / path.name).symlink_to(path)
    expected = str(tmp_path / "copy" / "configs" / "quickstart.py")
    assert load_in_a_process(tmp_path / "copy", outside) == ["7", "9", "32", expected, "False"]


def test_a_wheel_has_the_recipes_inside_the_package(tmp_path, outside):
    (tmp_path / "site" / "localmim_jax").mkdir(parents=True)
    for path in (*(ROOT / "localmim_jax").iterdir(), ROOT / "configs"):
        (tmp_path / "site" / "localmim_jax" / path.name).symlink_to(path)
    expected = str(tmp_path / "site" / "localmim_jax" / "configs" / "quickstart.py")
    assert load_in_a_process(tmp_path / "site", outside) == ["7", "9", "32", expected, "False"]


def test_config_file_with_an_argument(tmp_path):
    path = tmp_path / "recipe.py"
    path.write_text(
        "from ml_collections import ConfigDict\ndef get_config(size):\n    return ConfigDict({'size': size})\n"
    )
    assert load_config(f"{path}:large").size == "large"


def test_a_recipe_of_ones_own_wins(tmp_path, monkeypatch):
    packaged = load_config("configs/quickstart.py")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "quickstart.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    assert load_config("configs/quickstart.py").batch_size == 7
    (tmp_path / "configs" / "quickstart.py").unlink()
    assert load_config("configs/quickstart.py") == packaged


TAKES_A_RUN = """
from ml_collections import ConfigDict

def get_config(pretrained):
    return ConfigDict({"size": 2 * pretrained.size})
"""


def test_a_recipe_that_takes_its_model_from_a_run(tmp_path):
    path = tmp_path / "recipe.py"
    path.write_text(TAKES_A_RUN)
    assert load_config(str(path), lambda: ConfigDict({"size": 4})).size == 8
    with pytest.raises(ConfigError, match="takes the model and the image size from a run: add --config"):
        load_config(str(path))
