"""Sort the raw validation images of ImageNet into one folder per class.

    localmim imagenet_val --images=/data/val_raw --labels=LOC_val_solution.csv --output=/data/imagenet/val
    localmim imagenet_val --images=/data/val_raw --labels=ILSVRC2012_validation_ground_truth.txt \\
        --meta=meta.mat --output=/data/imagenet/val

The images are the 50,000 files ILSVRC2012_val_00000001.JPEG and so on of the tar file. The label file is one of:
Kaggle's LOC_val_solution.csv; the development kit's ground truth with its meta.mat; a text file with one synset
(n01751748) per line, in the order of the images. Images are hard-linked, which takes no space, or moved with --move.
Nothing is written unless every image has a label and every label an image.
"""

from pathlib import Path

from absl import flags

from localmim_jax.errors import DataError
from localmim_jax.recipes import common_flags

_IMAGES, _CLASSES = 50_000, 1000


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("images", None, "folder of the raw images", flag_values=values)
    flags.DEFINE_string("labels", None, "label file", flag_values=values)
    flags.DEFINE_string(
        "meta", "", "the development kit's meta.mat, or a text file with lines 'number synset'", flag_values=values
    )
    flags.DEFINE_string("output", None, "folder to write the class folders to", flag_values=values)
    flags.DEFINE_bool("move", False, "move images instead of linking them", flag_values=values)


def main(options: flags.FlagValues) -> None:
    common_flags.require(options, images="/data/val_raw", labels="LOC_val_solution.csv", output="/data/imagenet/val")
    from localmim_jax.data.imagenet import read_labels, sort_validation

    output = Path(options.output).expanduser()
    meta = Path(options.meta).expanduser() if options.meta else None
    labels = read_labels(Path(options.labels).expanduser(), meta)
    counts = sort_validation(Path(options.images).expanduser(), labels, output, options.move)
    low, high = min(counts.values()), max(counts.values())
    print(f"{output}: {sum(counts.values()):,} images of {len(counts):,} classes, {low} to {high} a class")
    if (sum(counts.values()), len(counts), low, high) != (_IMAGES, _CLASSES, 50, 50):
        print("not all of ImageNet's validation set, which has 50,000 images, 50 of each of 1,000 classes")
    train = output.parent / "train"
    if train.is_dir():
        classes = {path.name for path in train.iterdir() if path.is_dir()}
        if classes != set(counts):
            raise DataError(
                f"{train} has {len(classes):,} class folders, of which {len(classes & set(counts)):,} are among those "
                f"of {output}: both need the same"
            )
        print(f"{train} has the same classes")
