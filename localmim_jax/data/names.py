"""File names as text: in one form of Unicode, in one line."""

import unicodedata
from collections.abc import Sequence

from localmim_jax.errors import printable

_SHOWN = 3  # names in a note


def composed(name: str) -> str:
    """The name in Unicode's composed form (NFC). Some file systems store "é" as one character, others as two."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def some(names: Sequence[str], shown: int = _SHOWN) -> str:
    """The first few names in one printable line, and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(map(printable, names[:shown])) + more
