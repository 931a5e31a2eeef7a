"""What `localmim convert` is to write, told by the target's name and the names that its arrays shall have."""

import dataclasses
import os
from pathlib import Path
from typing import Literal

from localmim_jax.convert import files, onnx_io
from localmim_jax.convert.export import NAMINGS
from localmim_jax.errors import ConfigError

TRANSFORMERS = "transformers"
# Of formats that are not written here; any other ending is part of a directory's name, as in "vit_b.v2".
_OTHER_FORMATS = {
    *(".npy", ".h5", ".hdf5", ".keras", ".pkl", ".pickle", ".msgpack", ".zip", ".gz", ".tgz", ".7z", ".rar", ".pb"),
    *(".tflite", ".gguf", ".json", ".txt", ".csv", ".mat", ".orbax", ".weights", ".model", ".safetensor", ".mlmodel"),
}


@dataclasses.dataclass(frozen=True)
class Target:
    """Where to write, and what.

    Attributes:
        path: of the file or directory.
        form: "file" of arrays, "onnx", or a directory: "checkpoint" of ours, "timm" or "transformers".
        names: whose names the arrays get: one of `NAMINGS`, or "transformers".
    """

    path: Path
    form: Literal["file", "onnx", "checkpoint", "timm", "transformers"]
    names: str


def parse(target: str, names: str) -> Target:
    """The target of `--target` and `--names`; "" for names takes what belongs to the suffix.

    A suffix of a known format makes a file. Anything else, a name that ends in "/" and what is a directory already are
    directories, dots and all.

    Raises:
        ConfigError: they do not fit each other, torch is missing for a file of it, or there is something in the way.
    """
    path = files.local_path(target)
    suffix = "" if target.endswith(os.sep) or path.is_dir() else path.suffix.lower()
    if suffix in _OTHER_FORMATS:
        files.check_suffix(path)
    is_directory = suffix not in (*files.SUFFIXES, onnx_io.SUFFIX)
    names = names or ("release" if suffix in files.TORCH_SUFFIXES else "localmim")
    if names not in (*NAMINGS, TRANSFORMERS):
        raise ConfigError(f"--names={names}: it must be one of {', '.join((*NAMINGS, TRANSFORMERS))}")
    if is_directory:
        if names == "release":
            raise ConfigError(f"--target={target} is a directory, which the release does not read: give a suffix")
        files.check_empty(path)
        forms: dict[str, Literal["checkpoint", "timm", "transformers"]]
        forms = {"localmim": "checkpoint", "timm": "timm", TRANSFORMERS: "transformers"}
        return Target(path, forms[names], names)
    if suffix == onnx_io.SUFFIX:
        if names != "localmim":
            raise ConfigError(f"--names={names}: an ONNX file has no names of parameters; leave it out")
        onnx_io.check_installed(path)
        return Target(path, "onnx", names)
    if names == TRANSFORMERS:
        raise ConfigError(f"--target={target}: --names={names} writes a directory; give a name without a suffix")
    files.check_suffix(path)
    return Target(path, "file", names)
