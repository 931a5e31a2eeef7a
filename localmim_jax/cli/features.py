"""Write the features of images to an npz or CSV file, and plot them.

    localmim features --checkpoint=runs/vit_b --images=photos --output=features.npz
    localmim features --checkpoint=runs/vit_b --images=photos --output=features.csv --plot=plot
    localmim features --checkpoint=vit_b.pth --config=configs/vit_b_100ep.py --images=photos \\
        --output=tokens.npz --kind=tokens --layer=10

--images is a folder, flat or nested, or one file. If the folder has train/, val/ or test/, all splits are read. Images
are not masked. The npz file contains `paths` (relative to `root`), `splits` if the folder has splits, `labels` and
`class_names` if every image is in a class folder, and

    features   float32 [images, width]: the normalized and pooled feature of the last layer, what k-NN and the
               classification head read
    tokens     float32 [images, tokens, width] with --kind=tokens: the output of a layer, not normalized; a ViT's class
               token comes first, then the patches row by row

A CSV file has the columns path, split, class and one per feature. --plot=NAME also writes a 2-D embedding of the
features, by UMAP if umap-learn is installed, otherwise by PCA: NAME.png, and NAME.html, a self-contained page that
shows the image under the pointer.

Images are resized (bicubic) as in the run's evaluation (to 256 pixels for every 224 of the model's image size, unless
its config says otherwise), center-cropped, and normalized with the config's mean and standard deviation.
"""

import csv
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from localmim_jax.cli import embedding
from localmim_jax.errors import ConfigError, StorageError
from localmim_jax.files import replacing
from localmim_jax.recipes import common_flags

if TYPE_CHECKING:
    from localmim_jax.data.source import Source

KINDS = ("features", "tokens")


def define_flags(values: flags.FlagValues) -> None:
    common_flags.define_checkpoint(values)
    flags.DEFINE_string("images", None, "folder of images, flat or nested, or an image file", flag_values=values)
    flags.DEFINE_string("output", None, "npz or csv file to write", flag_values=values)
    flags.DEFINE_string("kind", "features", "features (pooled) or tokens", flag_values=values)
    flags.DEFINE_integer("layer", 0, "layer of the tokens, counted from 1; 0: the last", flag_values=values)
    flags.DEFINE_string("plot", "", "also plot the features, as NAME.png and NAME.html", flag_values=values)
    flags.DEFINE_enum(
        "embedding", "auto", embedding.METHODS, "method of the plot: pca, umap or auto", flag_values=values
    )
    common_flags.define_high_bit_depth(values)
    common_flags.define_batch_size(values, 64)
    common_flags.define_standard_merging(values)


def main(options: flags.FlagValues) -> None:
    common_flags.require(options, checkpoint="runs/quickstart", images="photos", output="features.npz")
    if options.kind not in KINDS:
        raise ConfigError(f"--kind={options.kind}: it must be one of {', '.join(KINDS)}")
    if options.layer and options.kind != "tokens":
        raise ConfigError(f"--layer={options.layer}: features are of the last layer; for another add --kind=tokens")
    output = Path(options.output).expanduser()
    if output.suffix not in (".npz", ".csv"):
        raise ConfigError(
            f"--output={options.output}: the file is an npz or a CSV, so its name must end in .npz or .csv"
        )
    if options.kind != "features" and (output.suffix == ".csv" or options.plot):
        raise ConfigError(f"--kind={options.kind} fits neither a CSV nor a plot: write features, or an npz alone")
    extract(
        options.checkpoint,
        options.images,
        output,
        config=options.config,
        kind=options.kind,
        layer=options.layer,
        batch_size=options.batch_size,
        standard_merging=options.standard_merging,
        plot=options.plot,
        method=options.embedding,
        high_bit_depth=options.high_bit_depth,
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
    plot: str = "",
    method: str = "auto",
    high_bit_depth: str | None = None,
) -> None:
    """Reads, computes and writes; see the flags and the top of this file.

    Raises:
        ConfigError: no config, no such layer, or weights that do not fill the model.
        DataError: no images, or one that cannot be decoded.
        StorageError: the output cannot be written.
    """
    from localmim_jax.api import load
    from localmim_jax.data.source import announced

    if plot:
        embedding.require(method)
    model = load(checkpoint, config, standard_merging=standard_merging)
    if high_bit_depth is not None:
        with model.config.unlocked():
            model.config.data.high_bit_depth = high_bit_depth
    root, sources = sources_of(images, model.config.data.channels)
    for _, source in sources:
        announced(source)
    beside = describe(root, sources)
    seen, kept, pictures = 0, [], []
    count = sum(len(source) for _, source in sources)
    every = -(-count // embedding.MAX_IMAGES)

    def batches() -> Iterator[dict[str, np.ndarray]]:
        nonlocal seen
        for _, source in sources:
            for found, batch in model.encode_source(source, (kind,), layer, batch_size):
                for row, image in enumerate(batch["image"] if plot else ()):
                    if (seen + row) % every == 0:
                        kept.append(found[kind][row])
                        pictures.append(embedding.thumbnail(image))
                seen += len(batch["image"])
                yield {kind: found[kind]}

    shape = (write_csv if output.suffix == ".csv" else write)(output, kind, batches(), count, beside)
    print(f"{output}: {kind} {list(shape)} of {'; '.join(source.describe() for _, source in sources)}")
    if plot:
        draw(
            Path(plot).expanduser(),
            np.array(kept),
            pictures,
            {k: v if k == "class_names" else v[::every] for k, v in beside.items() if v.ndim},
            method,
        )


def sources_of(images: str, channels: int) -> "tuple[Path, list[tuple[str, Source]]]":
    """(root, [(split, source)]): every split of a divided folder, one source of split "" of any other, or one file.

    Raises:
        DataError: it is missing, or a split holds no image.
    """
    from localmim_jax.data.folder import FolderSource
    from localmim_jax.data.given import GivenImages
    from localmim_jax.data.splits import divided, splits_in

    root = Path(images).expanduser()
    if root.is_file():
        return root.parent, [("", GivenImages([str(root)], channels))]
    folders = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    if not divided(folders):
        return root, [("", FolderSource(images))]
    return root, [(split, FolderSource(images, split)) for split in splits_in(folders)]


def describe(root: Path, sources: "Sequence[tuple[str, Source]]") -> dict[str, np.ndarray]:
    """The arrays beside the features: paths, root and, where there are any, splits, labels and class names.

    Classes are those of all splits together, in sorted order; a label of a split without classes is -1.
    """
    from localmim_jax.data.given import GivenImages
    from localmim_jax.data.names import composed

    names = sorted({name for _, source in sources for name in source.class_names})
    number = {name: i for i, name in enumerate(names)}
    paths, splits, labels = [], [], []
    for split, source in sources:
        keys = [source.key_of(i) for i in range(len(source))]
        if isinstance(source, GivenImages):
            keys = [Path(key).name for key in keys]
        paths += [f"{split}/{key}" if split else key for key in keys]
        splits += [split] * len(keys)
        # Sorted folders are the classes, so the first folder of a key tells its label without reading the image.
        labels += [number[composed(key.partition("/")[0])] if source.labeled else -1 for key in keys]
    beside = {"paths": np.array(paths), "root": np.array(str(root))}
    if any(splits):
        beside["splits"] = np.array(splits)
    if names:
        beside |= {"labels": np.array(labels, np.int32), "class_names": np.array(names)}
    return beside


def draw(plot: Path, features: np.ndarray, pictures: list[str], beside: dict[str, np.ndarray], method: str) -> None:
    """PLOT.png and PLOT.html of these features. Raises ConfigError, StorageError."""
    if len(features) < 2:
        raise ConfigError(f"--plot={plot}: a plot needs at least two images")
    places, axes = embedding.embed(features, method)
    groups = [""] * len(features)
    if "labels" in beside:
        groups = [str(beside["class_names"][label]) if label >= 0 else "no class" for label in beside["labels"]]
    elif "splits" in beside:
        groups = [str(split) for split in beside["splits"]]
    title = f"{len(features):,} images, {axes}"
    embedding.draw_png(plot.with_name(f"{plot.name}.png"), places, groups, title)
    paths = [str(path) for path in beside["paths"]]
    embedding.write_html(plot.with_name(f"{plot.name}.html"), places, groups, paths, pictures, title)
    print(f"{plot}.png, {plot}.html: {title}")


def write_csv(
    output: Path, name: str, batches: Iterator[dict[str, np.ndarray]], count: int, beside: dict[str, np.ndarray]
) -> tuple[int, ...]:
    """A CSV of path, split and class (empty where there is none) and the features; arguments as in `write`."""
    done, width = 0, 0
    labels, splits = beside.get("labels"), beside.get("splits")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with replacing(output) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file, lineterminator="\n")
            for batch in batches:
                if not done:
                    width = batch[name].shape[1]
                    rows.writerow(["path", "split", "class", *(f"feature_{i}" for i in range(width))])
                for values in batch[name]:
                    class_name = "" if labels is None or labels[done] < 0 else beside["class_names"][labels[done]]
                    split = "" if splits is None else splits[done]
                    rows.writerow([beside["paths"][done], split, class_name, *(f"{value:.8g}" for value in values)])
                    done += 1
    except OSError as error:
        raise StorageError(f"{output} cannot be written: {error.strerror or error}") from error
    return count, width


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
