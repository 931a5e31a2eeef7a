"""The keys of a config: changed by overrides `key=value`, listed flat, and recorded as plain values."""

from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, FieldReference, config_flags

from localmim_jax.errors import ConfigError
from localmim_jax.recipes import hints


def override(config: ConfigDict, overrides: Sequence[str], resets: Sequence[str] = ()) -> ConfigDict:
    """The locked config with "key=value" overrides, and with the keys in `resets` set back to None."""
    known = dict(_fields(config))
    for key in [text.split("=", 1)[0] for text in overrides] + list(resets):
        if key not in known:
            raise ConfigError(f"--config.{key}: {hints.unknown_key(key, known)}")
    defaults = flatten(config)
    values = flags.FlagValues()
    tokens = [f"--config.{text}" for text in overrides]
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=["command", *tokens])
    try:
        values(["command", *tokens])
    except (flags.Error, TypeError, ValueError, AttributeError, KeyError) as error:
        raise ConfigError(hints.flag_error(error, values)) from error
    config = values.config
    for text in overrides:
        _check_tuple(text, defaults, config)
    for key in resets:
        if not isinstance(known[key], FieldReference):
            raise ConfigError(f"--config.{key}=None: this key always needs a value")
        holder, _, name = key.rpartition(".")
        _lookup(config, holder)[name] = None
    return config


def _fields(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """("model.depth", value) for every key; a value that may be None is a `FieldReference`."""
    for key, value in config.items(preserve_field_references=True):
        if isinstance(value, ConfigDict):
            yield from _fields(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def flatten(config: ConfigDict) -> dict[str, Any]:
    """{"model.target.bins": 18} for every key, as overrides name them; references are resolved."""
    return {key: value.get() if isinstance(value, FieldReference) else value for key, value in _fields(config)}


def record(config: ConfigDict) -> dict[str, Any]:
    """The resolved config as nested plain dicts that survive a round trip through JSON: tuples become lists."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        return [plain(inner) for inner in value] if isinstance(value, (tuple, list)) else value

    return plain(config.copy_and_resolve_references().to_dict())


def _lookup(config: ConfigDict, path: str) -> Any:
    for part in filter(None, path.split(".")):
        config = config[part]
    return config


def _check_tuple(text: str, defaults: dict[str, Any], config: ConfigDict) -> None:
    """A tuple's parser takes words too; every tuple of a config holds numbers."""
    key = text.split("=", 1)[0]
    value = _lookup(config, key)
    if not isinstance(value, tuple):
        return
    whole = all(type(number) is int for number in defaults[key] or ())
    if not all(type(number) is int or (type(number) is float and not whole) for number in value):
        kind = "whole numbers" if whole else "numbers"
        raise ConfigError(f"--config.{text}: {kind} separated by commas are needed")
