"""A recipe's file becomes a config."""

import inspect
import re
import runpy
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from localmim_jax import configs
from localmim_jax.errors import ConfigError, UserError
from localmim_jax.recipes import hints

_PACKAGED = Path(configs.__path__[0])


def load_config(path: str, pretrained: Callable[[], ConfigDict] | None = None) -> ConfigDict:
    """What `get_config()` of a recipe returns, locked. A config is code: run only your own.

    Args:
        path: a Python file, or else the name of a recipe of this package, with or without `configs/` and `.py`. What
            follows a colon is the argument of `get_config`, as in "table1:vit_b_local_multi".
        pretrained: gives the config of the run that `checkpoint.init_from` names, to a recipe whose `get_config` has a
            parameter of this name. None where no run is named.

    Raises:
        ConfigError: there is no such file or recipe, it does not return a config, or it needs `pretrained`.
    """
    name, *argument = path.split(":", 1)
    file = find(name)
    content: dict[str, Any] = {}
    try:
        content = runpy.run_path(file)
        get_config = content.get("get_config")
        if get_config is None:
            raise ConfigError(f"{file} has no function get_config()")
        wanted = {}
        if "pretrained" in inspect.signature(get_config).parameters:
            if pretrained is None:
                raise ConfigError(
                    f"{name} takes the model and the image size from a run: add --config.checkpoint.init_from=RUN "
                    "(in Python: load_config(name, pretrained=lambda: load(RUN).config))"
                )
            wanted["pretrained"] = pretrained()
        config = get_config(*argument, **wanted)
    except UserError:
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


def find(name: str) -> str:
    """The file of a recipe: `name` itself where it is a file, else the one of that name in this package.

    Raises:
        ConfigError: there is neither.
    """
    if Path(name).is_file():
        return name
    stem = name.removeprefix("configs/").removesuffix(".py")
    if stem in {path.stem for path in _recipes(_PACKAGED)}:
        return str(_PACKAGED / f"{stem}.py")
    known = recipe_files()
    if "/" not in name:  # a bare name is answered with bare ones
        known = [file.removeprefix("configs/") for file in known]
    if not name.endswith(".py"):
        known = [file.removesuffix(".py") for file in known]
    kind = "config file" if name.endswith(".py") or "/" in name else "recipe"
    raise ConfigError(f"{kind} {name} not found{hints.did_you_mean(name, known)}")


def recipe_files() -> list[str]:
    """Every recipe, as --config names it, the quickstart's first."""
    found = {f"configs/{path.name}" for place in (Path("configs"), _PACKAGED) for path in _recipes(place)}
    return sorted(found, key=lambda path: ("quickstart" not in path, path))


def _recipes(place: Path) -> list[Path]:
    return [path for path in place.glob("*.py") if path.stem != "__init__"]
