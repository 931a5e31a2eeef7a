"""The one walk over folders: which files are images, and what else is there that a user should know of."""

import collections
import dataclasses
import errno
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from localmim_jax.data.decode import SUFFIXES, what_it_is
from localmim_jax.data.names import some
from localmim_jax.errors import DataError, printable

# Folders that systems and archives leave beside images. Those of "@eaDir" are full of thumbnails.
_LEFT_OUT = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"})
_DEAD_LINK = (errno.ENOENT, errno.ELOOP, errno.ENOTDIR)


@dataclasses.dataclass(frozen=True)
class Found:
    """The files below a folder. Names are relative to it, with "/".

    Attributes:
        root: the folder.
        files: regular files with a suffix that was asked for, sorted.
        skipped: number of other regular files by lower-case suffix, "" for none. Those that start with a dot and those
            in folders that start with a dot do not count.
        unusable: names with such a suffix that are no regular files, and why.
        empty: folders directly below the root with none of `files`.
    """

    root: Path
    files: tuple[str, ...]
    skipped: dict[str, int]
    unusable: dict[str, str]
    empty: tuple[str, ...]

    def notes(self) -> list[str]:
        """Lines on what is not read, [] where everything is."""
        lines = []
        if self.skipped:
            lines.append(f"{self.root}: not read: {counts(self.skipped)}")
        if self.unusable:
            names = [f"{name} ({reason})" for name, reason in self.unusable.items()]
            lines.append(f"{self.root}: {len(names)} are named like images and are no files: {some(names)}")
        if self.empty:
            lines.append(f"{self.root}: {len(self.empty)} folders hold no image: {some(self.empty)}")
        return lines


def find_files(root: Path, suffixes: Collection[str] = SUFFIXES) -> Found:
    """Regular files below `root` whose suffix, in lower case, is one of `suffixes`. Links to folders are followed.

    Files and folders that start with a dot are left out, and so are folders that systems make (`__MACOSX`, `@eaDir`).

    Raises:
        DataError: a folder or a file's status cannot be read; names it.
    """
    files: list[str] = []
    skipped: collections.Counter[str] = collections.Counter()
    unusable: dict[str, str] = {}
    tops: dict[str, bool] = {}
    for name, reason in _walk(root, "", (), tops):
        suffix = os.path.splitext(name)[1].lower()
        if suffix not in suffixes:
            skipped[suffix] += not reason
        elif reason:
            unusable[name] = reason
        else:
            files.append(name)
            tops[name.partition("/")[0]] = True
    files.sort()
    empty = sorted(name for name, used in tops.items() if not used)
    return Found(root, tuple(files), dict(+skipped), dict(sorted(unusable.items())), tuple(empty))


def folders_of(root: Path) -> list[str]:
    """The folders directly in `root` that a walk enters, sorted; [] where it is no folder."""
    if not root.is_dir():
        return []
    try:
        entries = os.listdir(root)
    except OSError as error:
        raise DataError(f"{root} cannot be listed ({error.strerror}): give it read rights") from error
    return sorted(name for name in entries if not _left_out(name) and os.path.isdir(root / name))


def is_file(path: Path) -> bool:
    """Whether it is a regular file, or a link to one."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or with a null character
        return False


def counts(skipped: dict[str, int]) -> str:
    """ "3 .txt, 1 .pdf, 1 without a suffix", the most frequent first."""
    ordered = sorted(skipped.items(), key=lambda item: (-item[1], item[0]))
    return some([f"{count:,} {printable(suffix) or 'without a suffix'}" for suffix, count in ordered], 8)


def _walk(
    root: Path, inside: str, above: tuple[tuple[int, int], ...], tops: dict[str, bool]
) -> Iterator[tuple[str, str]]:
    """(name, why it is no regular file or "") of all entries below root / inside but folders.

    `above` has the folders on the way, which guards against links in a circle. Folders directly below the root are
    added to `tops`.
    """
    folder = os.path.join(root, inside)
    try:
        status = os.stat(folder)
        entries = list(os.scandir(folder))
    except OSError as error:
        raise DataError(f"{printable(folder)} cannot be listed ({error.strerror}): give it read rights") from error
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        tops.pop(inside, None)
        return
    for entry in entries:
        if _left_out(entry.name):
            continue
        name = f"{inside}/{entry.name}" if inside else entry.name
        kind = _kind(entry)
        if kind != "folder":
            yield name, kind
            continue
        if not inside:
            tops[name] = False
        yield from _walk(root, name, (*above, identity), tops)


def _left_out(name: str) -> bool:
    return name.startswith(".") or name in _LEFT_OUT


def _kind(entry: os.DirEntry) -> str:
    """ "" for a regular file, "folder", or what else it is. Only links cost a system call."""
    try:
        if entry.is_file():
            return ""
        if entry.is_dir():
            return "folder"
        return what_it_is(os.stat(entry.path).st_mode)
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "a link that leads in a circle"
        if error.errno in _DEAD_LINK:
            return "a link that leads nowhere"
        raise DataError(
            f"{printable(entry.path)} cannot be accessed ({error.strerror}): give read rights or remove it"
        ) from error
