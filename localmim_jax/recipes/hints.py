"""What the user is told of a flag, a key or a full memory: what is wrong, and what to write instead."""

import ast
import difflib
import re
from collections.abc import Iterable
from typing import Any

from absl import flags

_NEEDED = {"int": "a whole number", "float": "a number", "bool": "true or false", "config dict": "one of its keys"}


def one_line(text: str) -> str:
    """The text without line breaks and repeated spaces."""
    return " ".join(text.split())


def flag_error(error: Exception, values: flags.FlagValues) -> str:
    """absl's words for a bad flag, with what to write instead."""
    text = one_line(str(error))
    match = re.match(r"flag --([^=]+)=(.*?): ", text)
    if match is None or match.group(1) not in values:
        if missing := re.match(r"Missing value for flag --?([^ ]+)", text):
            return f"--{missing.group(1)}: a value is needed, as in --{missing.group(1)}=VALUE"
        unknown = re.match(r"Unknown command line flag '([^']*)'", text)
        return f"--{unknown.group(1)}: no such flag{_suggest_flag(unknown.group(1), values)}" if unknown else text
    name, value = match.groups()
    if choices := getattr(values[name].parser, "enum_values", None):
        return f"--{name}={value}: it must be one of {', '.join(choices)}"
    needed, least = _NEEDED.get(values[name].flag_type(), text), getattr(values[name].parser, "lower_bound", None)
    if least is not None:
        needed += f" of at least {least}"
    hint = _value_hint(values[name].flag_type(), value)
    return f"--{name}={value}: {needed} is needed" + (f"; write --{name}={hint}" if hint else "")


def _value_hint(kind: str, value: str) -> str:
    if kind == "bool":
        words = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
        return words.get(value.lower(), "")
    try:
        number = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return ""
    whole = kind == "int" and isinstance(number, float) and number.is_integer()
    return str(int(number)) if whole else ""


def leftover(argument: str, values: flags.FlagValues, fields: dict[str, Any]) -> str:
    """What an argument that belongs to no flag was probably meant to be."""
    if argument.endswith(".py"):
        return f"left-over argument {argument!r}; did you mean --config={argument}?"
    key = argument.split("=", 1)[0]
    if "=" not in argument:
        return f"left-over argument {argument!r}; every option starts with --"
    near = f"; did you mean --{argument}?" if key in values else _suggest_key(key, fields)
    return f"left-over argument {argument!r}{near}"


def _suggest_flag(name: str, values: flags.FlagValues) -> str:
    return did_you_mean(name, [flag for flag in values if flag not in ("flagfile", "undefok")], "--")


def unknown_key(key: str, fields: Iterable[str]) -> str:
    """Why a key of a config cannot be set, and which one can."""
    inside = sorted(name for name in fields if name.startswith(f"{key}."))
    if inside:
        return f"a section, not a value; set a key of it, such as --config.{inside[0]}"
    return f"no such key{_suggest_key(key, fields)}"


def _suggest_key(key: str, fields: Iterable[str]) -> str:
    """Keys with the same or nearly the same last part ("depht"), else those whose last part contains it ("lr")."""
    last = {name: name.rpartition(".")[2] for name in fields}
    word = key.rpartition(".")[2]
    near = difflib.get_close_matches(word, last.values(), n=1, cutoff=0.75)
    found = [name for name in last if last[name] in near] or [
        name for name in last if len(word) > 1 and word in last[name]
    ]
    found = found or difflib.get_close_matches(key, last, n=1)
    found.sort(key=lambda name: -difflib.SequenceMatcher(None, key, name).ratio())
    return f"; did you mean {' or '.join(f'--config.{name}' for name in found[:3])}?" if found else ""


def did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    """ "; did you mean ...?" with the most similar word, or "" where none is similar."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {prefix}{near[0]}?" if near else ""
