"""Write the features of a folder of images to an npz file.

    localmim features --checkpoint=runs/vit_b --images=photos --output=features.npz
    localmim features --checkpoint=vit_b.pth --config=configs/vit_b_100ep.py --images=photos \\
        --output=tokens.npz --kind=tokens --layer=10

Images are not masked. The file holds `paths` (relative to `root`), `labels` and `class_names` where every image lies in
a class folder, and

    features   float32 [images, width]: the normalized and pooled feature of the last layer, what k-NN and the
               classification head read
    tokens     float32 [images, tokens, width] with --kind=tokens: the output of a layer, not normalized; a ViT's class
               token comes first, then the patches row by row

Images are resized (bicubic) as the run's evaluation resizes them (256 pixels for every 224 of the model's image size,
unless its config says otherwise), cropped at the center, and normalized by the config's mean and deviation.
"""

import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from localmim_jax.errors import ConfigError, StorageError
from localmim_jax.recipes import common_flags

KINDS = ("features", "tokens")


def define_flags(values: flags.FlagValues) -> None:
    common_flags.define_checkpoint(values)
    flags.DEFINE_string("images", None, "folder of images, flat or nested", flag_values=values)
    flags.DEFINE_string("output", None, "npz file to write", flag_values=values)
    flags.DEFINE_string("kind", "features", "features (pooled) or tokens", flag_values=values)
    flags.DEFINE_integer("layer", 0, "of the tokens, counted from 1; 0: the last", flag_values=values)
    common_flags.define_batch_size(values, 64)
    common_flags.define_standard_merging(values)


def main(options: flags.FlagValues) -> None:
    common_flags.require(options, checkpoint="runs/quickstart", images="photos", output="features.npz")
    if options.kind not in KINDS:
        raise ConfigError(f"--kind={options.kind}: it must be one of {', '.join(KINDS)}")
    if options.layer and options.kind != "tokens":
        raise ConfigError(f"--layer={options.layer}: features are of the last layer; for another add --kind=tokens")
    output = Path(options.output).expanduser()
    if output.suffix != ".npz":
        raise ConfigError(f"--output={options.output}: the file is an npz, so its name must end in .npz")
    extract(
        options.checkpoint,
        options.images,
        output,
        config=options.config,
        kind=options.kind,
        layer=options.layer,
        batch_size=options.batch_size,
        standard_merging=options.standard_merging,
    )


def extract(
    checkpoint: str,
    images: str,
    output: Path,
    config: ConfigDict | None = None,
    kind: str = "features",
    layer: int = 0,
    batch_size: int = 64,
    standard_merging: bool | None = None,
) -> None:
    """Reads, computes and writes; see the flags and the top of this file.

    Raises:
        ConfigError: no config, no such layer, or weights that do not fill the model.
        DataError: no images, or one that cannot be decoded.
        StorageError: the output cannot be written.
    """
    from localmim_jax.api import config_of, load
    from localmim_jax.data.folder import FolderSource
    from localmim_jax.data.source import announced

    config = config_of(checkpoint, config)
    source = announced(FolderSource(images))
    model = load(checkpoint, config, standard_merging=standard_merging)

    def batches() -> Iterator[dict[str, np.ndarray]]:
        for found, batch in model.encode_source(source, (kind,), layer, batch_size):
            yield {kind: found[kind]} | ({"labels": batch["label"]} if source.labeled else {})

    beside = {"paths": np.array([source.key_of(i) for i in range(len(source))]), "root": np.array(str(source.root))}
    if source.labeled:
        beside["class_names"] = np.array(source.class_names)
    shape = write(output, kind, batches(), len(source), beside)
    print(f"{output}: {kind} {list(shape)} of {source.describe()}")


def write(
    output: Path, name: str, batches: Iterator[dict[str, np.ndarray]], count: int, beside: dict[str, np.ndarray]
) -> tuple[int, ...]:
    """An npz of all batches together, and of `beside`. The array called `name`, the large one, goes straight to disk.

    Args:
        output: the file; an older one is replaced.
        name: of the large array.
        batches: arrays by name, examples first.
        count: of all examples.
        beside: more arrays.

    Returns:
        The shape of the large array.

    Raises:
        StorageError: it cannot be written.
    """
    small: dict[str, list[np.ndarray]] = {}
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.stem}.") as folder:
            place, done, shape = Path(folder) / f"{name}.npy", 0, (count,)
            for batch in batches:
                part = batch.pop(name)
                if not done:
                    shape = (count, *part.shape[1:])
                    large = np.lib.format.open_memmap(place, "w+", part.dtype, shape)
                large[done : done + len(part)] = part
                done += len(part)
                for key, array in batch.items():
                    small.setdefault(key, []).append(array)
            large.flush()
            unfinished = Path(folder) / "unfinished.npz"
            others: dict[str, Any] = {key: np.concatenate(arrays) for key, arrays in small.items()}
            np.savez(unfinished, **(beside | others))
            with zipfile.ZipFile(unfinished, "a") as archive:
                archive.write(place, place.name)
            unfinished.replace(output)
    except OSError as error:
        raise StorageError(f"{output} cannot be written: {error.strerror or error}") from error
    return shape
