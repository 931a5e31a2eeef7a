"""Convert weights: the authors' release, MAE, timm, Transformers, ONNX, ours.

    localmim convert --source=checkpoint.pth --target=runs/released
    localmim convert --source=runs/vit_b --target=vit_b.pth
    localmim convert --source=runs/vit_b_finetune --target=vit_b.safetensors --names=timm
    localmim convert --source=runs/swin_b --target=swin_b_encoder.npz --part=encoder
    localmim convert --source=runs/vit_b --target=vit_b_transformers --names=transformers
    localmim convert --source=runs/vit_b --target=vit_b_timm --names=timm
    localmim convert --source=runs/vit_b --target=vit_b.onnx

The source is a run directory, one of its checkpoints, a directory of Hugging Face Transformers or timm (config.json and
weights), or a file in safetensors, npz or PyTorch format. Its project is recognized by the names of its arrays. The
suffix of the target selects its format. A target without one of these suffixes is written as a directory: a checkpoint
for checkpoint.init_from; with --names=transformers, a model for from_pretrained; with --names=timm, a model for
timm.create_model("local-dir:..."). An ONNX file computes the model on unmasked images: the logits of a classifier,
otherwise the pooled feature, or with --part=encoder the tokens of the last layer. Untrusted files are read as data and
never executed; their sha256 is printed.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from localmim_jax.errors import ConfigError
from localmim_jax.recipes import common_flags

if TYPE_CHECKING:
    from localmim_jax.convert.weights import Weights

HEAD_ORDERS = ("pool_norm", "norm_pool")
_HOG_BIAS = "hog_enc.{}.conv.bias"


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("source", None, "run directory, checkpoint or file to read", flag_values=values)
    flags.DEFINE_string("target", None, "file or directory to write", flag_values=values)
    flags.DEFINE_string(
        "names",
        "",
        "localmim, release, timm or transformers; empty: release for PyTorch's suffixes, else localmim",
        flag_values=values,
    )
    flags.DEFINE_string(
        "config", "", "recipe of the model, for an ONNX export of a source without a run", flag_values=values
    )
    flags.DEFINE_string("part", "all", "all, or encoder for the encoder alone", flag_values=values)
    common_flags.define_standard_merging(values)
    flags.DEFINE_string(
        "head_order",
        "",
        "pool_norm or norm_pool, for a Swin classifier whose names do not show the order",
        flag_values=values,
    )


def main(options: flags.FlagValues) -> None:
    common_flags.require(options, source="runs/vit_b", target="vit_b.npz")
    for name, allowed in (("part", ("all", "encoder")), ("head_order", ("", *HEAD_ORDERS))):
        if getattr(options, name) not in allowed:
            raise ConfigError(
                f"--{name}={getattr(options, name)}: it must be one of {', '.join(filter(None, allowed))}"
            )
    print("\n".join(convert(**{name: getattr(options, name) for name in _ARGUMENTS})))


_ARGUMENTS = ("source", "target", "names", "part", "standard_merging", "head_order", "config")


def convert(
    source: str,
    target: str,
    names: str = "",
    part: str = "all",
    standard_merging: bool | None = None,
    head_order: str = "",
    config: ConfigDict | None = None,
) -> list[str]:
    """Reads, renames and writes; see the flags for the arguments.

    Returns:
        Lines that say what was read, left out and written.

    Raises:
        ConfigError, DataError, StorageError: something does not fit, cannot be read or written; says what.
    """
    from localmim_jax.cli import exports
    from localmim_jax.convert import files
    from localmim_jax.convert import target as targets
    from localmim_jax.convert.export import export, only_encoder
    from localmim_jax.convert.weights import info_to_json
    from localmim_jax.tasks import initialize

    to = targets.parse(target, names)
    files.check_readable(files.local_path(source))
    weights = initialize.read(source, standard_merging)
    lines = [
        f"read     {weights.origin}: {weights.info.family}, {weights.info.kind}, {len(weights.arrays)} arrays",
        *_grouped_reasons(weights.ignored),
        *_notes(weights, to.form, part, standard_merging, head_order, config),
    ]
    if head_order:
        if weights.info.kind != "classifier":
            raise ConfigError(f"--head_order={head_order}: {source} has no classification head; leave it out")
        weights = dataclasses.replace(weights, info=dataclasses.replace(weights.info, head_order=head_order))
    if to.form == "onnx":
        return [*lines, exports.write_onnx(source, to.path, weights, part, config)]
    if part == "encoder":
        weights = only_encoder(weights)
    if to.form in exports.FOLDERS:
        return [*lines, *exports.FOLDERS[to.form](source, to.path, weights)]
    arrays, info = export(weights, to.names)
    if to.form == "file":
        files.write(to.path, arrays, info_to_json(info))
    else:
        exports.write_checkpoint(to.path, arrays, info)
    count = sum(array.size for array in arrays.values())
    lines.append(f"written  {to.path}: {info.kind}, {len(arrays)} arrays, {count:,} numbers, {to.names} names")
    if info.hog_bias is not None and to.names == "localmim":
        name = to.path.stem if to.form == "file" else to.path.name
        file = to.path.with_name(f"{name}_hog_bias.npz")
        values: dict[str, Any] = {_HOG_BIAS.format(k): np.array(v, np.float32) for k, v in enumerate(info.hog_bias)}
        np.savez(file, **values)
        lines.append(f"written  {file}: to go on pre-training, --config.model.target.hog_bias={file}")
    return lines


def _notes(
    weights: "Weights",
    form: str,
    part: str,
    standard_merging: bool | None,
    head_order: str,
    config: ConfigDict | None,
) -> list[str]:
    """What was assumed, and flags that change nothing or contradict what the source tells."""
    known, notes = weights.info.head_order, []
    if "head_order" in weights.assumed:
        notes += [] if head_order or part == "encoder" else [weights.assumed["head_order"]]
    elif head_order and known is not None and head_order != known:
        notes.append(f"--head_order={head_order}, although the source has {known}: the logits will differ")
    if standard_merging is not None and not weights.merging_flag:
        notes.append(
            "--standard_merging has no effect: the source shows its order of patch merging, or has no patch merging"
        )
    if config is not None and form != "onnx":
        notes.append("--config has no effect: it is only for ONNX files")
    return [f"note     {note}" for note in notes]


def _grouped_reasons(ignored: dict[str, str]) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for name, reason in ignored.items():
        reasons.setdefault(reason, []).append(name)
    return [f"ignored  {len(found)} x {reason}: {found[0]}, ..." for reason, found in reasons.items()]
