"""The names that people give to splits: "val" in a config also finds `valid/`, `Validation/` and `dev/`.

Datasets that are prepared from folders have the first name of each kind: train, val, test.
"""

from collections.abc import Sequence

_NAMES = (
    ("train", "training"),
    ("val", "validation", "valid", "dev"),
    ("test", "testing"),
)
ALWAYS = ("train", "val", "validation", "test")  # never a class, in any case; the other names may be classes


def split_names(split: str) -> tuple[str, ...]:
    """The lower-case names that mean the same split, the given one first."""
    known = split.lower()
    others = next((names for names in _NAMES if known in names), ())
    return (known, *(name for name in others if name != known))


def usual_name(split: str) -> str:
    """The first of the names that mean this split; the split itself where none of `_NAMES` does."""
    return next((names[0] for names in _NAMES if split.lower() in names), split)


def means(split: str, *usual: str) -> bool:
    """Whether a split is one of the usual ones, "train", "val" or "test", by any of their names."""
    return any(name in usual for name in split_names(split))


def find_split(folders: Sequence[str], split: str) -> list[str]:
    """Those of the folders that may be meant by `split`: the one of exactly that name, else all that mean the same.

    More than one is for the caller to refuse.
    """
    if split in folders:
        return [split]
    exact = [name for name in folders if name.lower() == split.lower()]
    return exact or [name for name in folders if name.lower() in split_names(split)]


def divided(folders: Sequence[str]) -> bool:
    """Whether these folders are splits rather than classes.

    They are where one is called train, val, validation or test, or training beside others, or all have such names: a
    class may be called "valid".
    """
    names = [name.lower() for name in folders]
    known = {name for group in _NAMES for name in group}
    return any(name in ALWAYS or name == "training" for name in names) or (bool(names) and known.issuperset(names))


def splits_in(folders: Sequence[str]) -> list[str]:
    """Those of the folders that are called like a split, training first."""
    order = [name for names in _NAMES for name in names]
    return sorted((name for name in folders if name.lower() in order), key=lambda name: order.index(name.lower()))
