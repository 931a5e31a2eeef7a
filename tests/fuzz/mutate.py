"""Mutations of JSON and of bytes."""

import copy
from typing import Any

from hypothesis import strategies as st

_NUMBERS = st.one_of(
    st.integers(-3, 100),
    st.floats(width=64),
    st.floats(-10, 100).map(lambda value: round(value, 1)),
    st.sampled_from([2**31, 2**53 + 1, 2**63, 2**70, 10**300, 10**400, -1, 0, 1e-300, 1e300]),
)
_SIMPLE = st.one_of(st.none(), st.booleans(), _NUMBERS, st.text(max_size=6), st.integers(0, 40).map(str))
JSON = st.recursive(
    _SIMPLE,
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=9,
)


def _places(value: Any, path: tuple = ()) -> list[tuple]:
    """The paths of everything inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in inner for found in [(*path, key), *_places(item, (*path, key))]]


@st.composite
def changed(draw: Any, original: Any, number: int = 3) -> Any:
    """JSON with some of its values replaced, removed, repeated, or renamed."""
    content = copy.deepcopy(original)
    for _ in range(draw(st.integers(1, number))):
        places = _places(content)
        if not places:
            break
        *above, key = draw(st.sampled_from(places))
        holder = content
        for step in above:
            holder = holder[step]
        how = draw(st.sampled_from(["replace", "replace", "replace", "remove", "repeat", "text"]))
        if how == "remove":
            del holder[key]
        elif how == "text":
            holder[key] = str(holder[key])
        elif how == "repeat" and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        elif how == "repeat":
            holder[draw(st.sampled_from(sorted(holder)))] = copy.deepcopy(holder[key])
        else:
            holder[key] = draw(JSON)
    return content


@st.composite
def damaged(draw: Any, original: bytes) -> bytes:
    """Bytes with some replaced, removed, inserted, or cut off at the end."""
    content = bytearray(original)
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, max(0, len(content) - 1)))
        how = draw(st.sampled_from(["replace", "replace", "replace", "flip", "remove", "insert", "cut"]))
        if how == "replace":
            content[place : place + 1] = draw(st.binary(min_size=1, max_size=4))
        elif how == "flip" and content:
            content[place] ^= 1 << draw(st.integers(0, 7))
        elif how == "remove":
            del content[place : place + draw(st.integers(1, 40))]
        elif how == "insert":
            content[place:place] = draw(st.binary(max_size=12))
        elif how == "cut" and draw(st.booleans()):
            del content[place:]
    return bytes(content)
