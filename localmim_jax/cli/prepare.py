"""Prepare a dataset for training, or write a copy that is cheaper to read.

    localmim prepare --name=tfds:imagenet2012 --manual_dir=DIR_OF_THE_TAR_FILES
    localmim prepare --name=tfds:imagenet2012 --save_as=imagenet2012_array_record
    localmim prepare --name=folder:/data/photos --save_as=photos_320 --short_side=320
    localmim prepare --name=tfds:imagenet2012 --save_as=imagenet_256_raw --short_side=256 --encoding=raw
    localmim prepare --name=masks:/data/ADEChallengeData2016 --save_as=ade20k

The first command writes array_record files, which allow random access. --save_as copies any source to a TFDS dataset of
that name in data_dir; use it as data.name=tfds:<save_as>. --short_side shrinks larger images (bicubic). --encoding=raw
stores pixels, which take several times the space of JPEGs but almost no time to decode. Masks are copied with their
images, unchanged. The splits of a folder are named train, val and test in the copy, whatever their names in the folder
(Train, valid, dev, ...); data.split=training or validation finds them too.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from localmim_jax.errors import ConfigError
from localmim_jax.recipes import common_flags

if TYPE_CHECKING:
    from localmim_jax.data.builders.reencode import Converter
    from localmim_jax.data.builders.write import Example, Split


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("name", None, "what to prepare, as data.name in a config", flag_values=values)
    common_flags.define_data_dir(values, "TFDS's own default")
    flags.DEFINE_string("manual_dir", "", "folder of the files that TFDS cannot download", flag_values=values)
    flags.DEFINE_string("save_as", "", "name of a new dataset, in snake_case", flag_values=values)
    flags.DEFINE_list("splits", [], "splits to copy; empty: all", flag_values=values)
    flags.DEFINE_integer(
        "short_side", 0, "shrink images to this short side in pixels; 0: keep their size", flag_values=values
    )
    flags.DEFINE_string("encoding", "", "keep, jpeg or raw; empty: jpeg with --short_side", flag_values=values)
    flags.DEFINE_integer("quality", 95, "JPEG quality, 1 to 100", flag_values=values)
    flags.DEFINE_integer("channels", 3, "1 for gray, 3 for RGB", flag_values=values)
    flags.DEFINE_float(
        "max_bad_fraction",
        0.01,
        "maximum fraction of images that cannot be decoded and are left out",
        flag_values=values,
    )


def main(options: flags.FlagValues) -> None:
    common_flags.require(options, name="tfds:imagenet2012")
    from localmim_jax.data import tfds_source
    from localmim_jax.data.builders.reencode import Converter
    from localmim_jax.data.storage import default_dir

    data_dir = default_dir(options.data_dir)
    if options.save_as:
        copy(
            options.name,
            data_dir,
            options.save_as,
            Converter(options.short_side, options.encoding, options.quality, options.channels),
            tuple(options.splits),
            options.max_bad_fraction,
        )
        print(f"use it with --config.data.name=tfds:{options.save_as} --config.data.data_dir={data_dir}")
    elif options.name.startswith("tfds:"):
        builder = tfds_source.find_builder(options.name, data_dir)
        tfds_source.prepare(builder, data_dir, options.manual_dir)
        for split in builder.info.splits:
            print(tfds_source.open_tfds(options.name, split, data_dir).describe())
    else:
        raise ConfigError(f"{options.name} needs no preparation; give --save_as=NAME to make a smaller copy of it")


def copy(
    name: str,
    data_dir: str,
    save_as: str,
    convert: "Converter",
    splits: Sequence[str] = (),
    max_bad_fraction: float = 0.01,
) -> None:
    """`data.builders.write.write_copy` of any source, of images with masks too."""
    from localmim_jax.data.builders import write

    if not name.startswith("masks:"):
        write.write_copy(name, data_dir, save_as, convert, splits, max_bad_fraction)
        return
    if convert.short_side:
        raise ConfigError("--short_side does not shrink masks, so their images must keep their size: leave it out")
    write.write_copy(name, data_dir, save_as, convert, splits, max_bad_fraction, open_mask_splits)


def open_mask_splits(name: str, splits: Sequence[str], data_dir: str) -> "list[Split]":
    """The splits of "masks:FOLDER", all of them where none is named. Raises DataError."""
    from localmim_jax.data.builders.write import random_access_split
    from localmim_jax.segmentation.sources import open_masks

    folder = Path(name.removeprefix("masks:")).expanduser() / "images"
    found = []
    for split in splits or sorted(path.name for path in folder.glob("*/")) or ["training"]:
        source = open_masks(name, split, data_dir)

        def read(index: int, source: Any = source) -> "Example":
            image, annotation = source.read(index)
            return {"image": image, "annotation": annotation}

        found.append(random_access_split(source, split, read, masks=True))
    return found
