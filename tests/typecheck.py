"""The type checker that conftest's import hook puts on every function of the hooked packages."""

from collections.abc import Callable
from typing import Any, Self

from beartype import BeartypeConf, beartype

_check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float where a float is wanted


def check_types(function: Callable[..., Any]) -> Callable[..., Any]:
    """Checks arguments and results against their annotations, array shapes and dtypes included.

    Constructors are left out: the configs report wrong values as ConfigErrors, and JAX rebuilds the dataclasses that
    it knows as pytrees around leaves that are not arrays. So are methods that return Self, which beartype knows only
    in a class that it decorates as a whole.
    """
    if function.__name__ == "__init__" or function.__annotations__.get("return") is Self:
        return function
    return _check(function)
