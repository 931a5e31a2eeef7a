"""What tells a dataset from another: a digest of names and sizes, without reading the images."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

_THREADS = 16  # a network's file system answers many questions at once
STATTED = 100_000  # files, evenly spread, whose size counts; these and 1.28 million names took 3 s on one disk


def digest(*parts: object) -> str:
    """32 hexadecimal digits of the parts' `repr`; large texts may be given as bytes."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part if isinstance(part, bytes) else repr(part).encode(errors="surrogatepass"))
        found.update(b"\0")
    return found.hexdigest()[:32]


def of_files(root: Path, names: Sequence[str | bytes] | np.ndarray) -> str:
    """Digest of all names and of the sizes in bytes of up to `STATTED` of these files; a missing file has size -1."""
    count = len(names)
    picked = np.unique(np.linspace(0, count - 1, min(count, STATTED)).astype(np.int64)) if count else ()
    paths = [os.path.join(os.fsencode(root), os.fsencode(names[i])) for i in picked]
    with ThreadPoolExecutor(_THREADS) as pool:
        sizes = np.fromiter(pool.map(_size, paths), np.int64, len(paths))
    return digest(_joined(names), sizes.tobytes())


def _joined(names: Iterable[Any]) -> bytes:
    return b"\0".join(os.fsencode(name) for name in names)


def _size(path: bytes) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1
