"""Which model a file of weights holds, told by its names; then the arrays under our paths, in our layouts.

Every name of the file is used, or ignored for a stated reason, or reported as unexpected: nothing is dropped silently.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from localmim_jax.convert import names
from localmim_jax.convert.folders import with_config
from localmim_jax.convert.naming import Naming, Scheme, naming_of, namings
from localmim_jax.convert.weights import Weights, info_from_json
from localmim_jax.errors import DataError
from localmim_jax.models.info import ModelInfo

_NO_SUCH_NAME = "no part of this model has such a name"
_NDIM = {"linear": 2, "patch": 4, "deconv": 4, "conv1x1": 4, "token": 3, "positions": 3}


def recognize(
    arrays: Mapping[str, np.ndarray], extra: Mapping[str, Any], origin: str, standard_merging: bool | None = None
) -> Weights:
    """Weights from the content of a file as `files.read` returns it: ours, the release's, MAE's, timm's, Transformers'.

    Args:
        arrays: by name.
        extra: {"info": our own note, "args": the release's command line, "config": timm's or Transformers'}, where
            present.
        origin: the file, for messages.
        standard_merging: whether the patch merging of a Swin under pre-training names is in the standard order already.
            The release's own files are not (docs/differences.md). None: as the names prove it, a file with the
            release's decoders is permuted; where they prove nothing, the standard order is assumed.

    Raises:
        DataError: the names are of no model known here, or our note is damaged.
    """
    info = info_from_json(extra["info"], origin) if "info" in extra else None
    if any("/" in name for name in arrays):
        return _ours(arrays, info, origin)
    if all(name.startswith("module.") for name in arrays):  # saved from inside a data-parallel wrapper
        arrays = {name.removeprefix("module."): array for name, array in arrays.items()}
    schemes = [scheme for _, naming in namings() if (scheme := naming.recognize(arrays, origin)) is not None]
    if not schemes:
        shown = ", ".join(name[:40] for name in sorted(arrays)[:4])
        raise DataError(
            f"{origin} holds neither a ViT nor a Swin of LocalMIM, MAE, SimMIM, timm or Transformers: its arrays are "
            f"{shown}, ..."
        )
    # Kinds may share most of their names: the file is of the one that leaves the fewest of its arrays without use.
    applied = [_apply(arrays if scheme.arrays is None else scheme.arrays, scheme) for scheme in schemes]
    best = min(range(len(schemes)), key=lambda i: len(applied[i][2]))
    scheme, (found, ignored, unexpected) = schemes[best], applied[best]
    assumed = {key: text for key, text in scheme.assumed.items() if key != "merging" or standard_merging is None}
    if info is not None:
        assumed.pop("head_order", None)
    elif "config" in extra:
        info = with_config(scheme.info, extra["config"], origin)
    else:
        info = _with_command_line(scheme.info, extra.get("args", {}))
    found = _as_float32(found, unexpected)
    permuted = scheme.release_order if standard_merging is None else not standard_merging
    if permuted and scheme.release_order is not False:
        found = naming_of(info.family).standard_order(found)
    return Weights(found, info, origin, ignored, unexpected, assumed, scheme.release_order is not False)


def _ours(arrays: Mapping[str, np.ndarray], info: ModelInfo | None, origin: str) -> Weights:
    if info is None:
        tops = {name.split("/")[0] for name in arrays}
        kind = "pretrain" if "decoders" in tops else "classifier" if "head" in tops else "encoder"
        info = ModelInfo(_family(arrays), kind)
    unexpected = {name: _NO_SUCH_NAME for name in arrays if "/" not in name}
    known = {name: array for name, array in arrays.items() if name not in unexpected}
    return Weights(_as_float32(known, unexpected), info, origin, {}, unexpected)


def _family(arrays: Mapping[str, np.ndarray]) -> str:
    """The kind of backbone whose paths leave the fewest of the encoder's arrays without a rule."""
    paths = [path for path in arrays if path.startswith("encoder/")]

    def num_unexplained(naming: Naming) -> int:
        return sum(names.release_name(path, naming.encoder) is None for path in paths)

    return min(namings(), key=lambda kind: num_unexplained(kind[1]))[0]


def _apply(
    arrays: Mapping[str, np.ndarray], scheme: Scheme
) -> tuple[dict[str, np.ndarray], dict[str, str], dict[str, str]]:
    """(arrays by path, ignored names with reasons, unexpected names with reasons)."""
    found: dict[str, np.ndarray] = {}
    ignored: dict[str, str] = {}
    unexpected: dict[str, str] = {}
    for name, array in arrays.items():
        entry = next((entry for entry in scheme.ignored if re.fullmatch(entry[0], name)), None)
        if entry is not None:
            fits = entry[2] is None or entry[2](array)
            (ignored if fits else unexpected)[name] = entry[1] if fits else f"other than the {entry[1]} expected here"
        elif (ours := names.our_path(name, scheme.rules)) is None:
            unexpected[name] = _NO_SUCH_NAME
        elif array.ndim != _NDIM.get(ours[1], array.ndim):
            unexpected[name] = f"of shape {list(array.shape)} where {_NDIM[ours[1]]} axes are expected"
        else:
            found[ours[0]] = names.from_release(array, ours[1])
    return found, ignored, unexpected


def _as_float32(arrays: Mapping[str, np.ndarray], unexpected: dict[str, str]) -> dict[str, np.ndarray]:
    """What is no finite number moves to `unexpected`."""
    result = {}
    for path, array in arrays.items():
        if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
            unexpected[path] = f"of type {array.dtype}"
        elif not np.isfinite(converted := np.asarray(array, np.float32)).all():
            unexpected[path] = "holds numbers that are not finite"
        else:
            result[path] = converted
    return result


def _with_command_line(info: ModelInfo, args: Mapping[str, Any]) -> ModelInfo:
    """Takes the image size from the release's arguments, where the arrays do not tell it."""
    size = args.get("input_size")
    if info.image_size is not None or type(size) is not int or not 0 < size < 2**16:
        return info
    return dataclasses.replace(info, image_size=(size, size))
