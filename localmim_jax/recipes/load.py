"""A recipe's file becomes a config."""

import importlib.util
import re
import runpy
import traceback
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from localmim_jax.errors import ConfigError
from localmim_jax.recipes import hints


def load_config(path: str) -> ConfigDict:
    """What `get_config()` of a Python file returns, locked. `file.py:argument` calls `get_config("argument")`.

    `configs/<recipe>.py` is found in any directory: without such a file, it is the one that came with the package.
    A config is code: run only your own.
    """
    file, *argument = path.split(":", 1)
    if not Path(file).is_file():
        packaged = _packaged() / Path(file).name
        if Path(file).parent != Path("configs") or not packaged.is_file():
            raise ConfigError(f"config file {file} not found{hints.did_you_mean(file, recipe_files())}")
        file = str(packaged)
    content: dict[str, Any] = {}
    try:
        content = runpy.run_path(file)
        get_config = content.get("get_config")
        if get_config is None:
            raise ConfigError(f"{file} has no function get_config()")
        config = get_config(*argument)
    except ConfigError:
        raise
    except Exception as error:
        if argument and "sweep" in content and argument[0] not in (known := content["sweep"]()):
            near = hints.did_you_mean(argument[0], known)
            raise ConfigError(f"{file} has no {argument[0]!r}{near or '; it has ' + ', '.join(known)}") from error
        places = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        line = f", line {places[-1]}" if places else ""
        # ml_collections lists every key of the config, which buries its own suggestion.
        reason = re.sub(r'\. Other fields present:.*}"', ".", str(error), flags=re.DOTALL).replace("\\n", " ")
        raise ConfigError(f"config file {file}{line}: {type(error).__name__}: {reason}") from error
    if not isinstance(config, ConfigDict):
        raise ConfigError(f"get_config() of {file} returned a {type(config).__name__}, not a ConfigDict")
    return config.lock()


def _packaged() -> Path:
    """The directory of the recipes that come with the package."""
    spec = importlib.util.find_spec("configs")
    return Path(spec.origin).parent if spec is not None and spec.origin else Path("configs")


def recipe_files() -> list[str]:
    """Every recipe, as --config names it, the quickstart's first."""
    files = {f"configs/{path.name}" for place in (Path("configs"), _packaged()) for path in place.glob("*.py")}
    found = sorted(files - {"configs/__init__.py", "configs/common.py"})
    return sorted(found, key=lambda path: "quickstart" not in path) or ["configs/quickstart.py"]
