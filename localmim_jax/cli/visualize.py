"""Draw what a pre-trained model reconstructs of your images.

    localmim visualize --checkpoint=runs/vit_b photo.jpg holiday/*.jpg
    localmim visualize --checkpoint=released.pth --config=configs/vit_b_100ep.py photo.jpg
    localmim visualize --checkpoint=runs/vit_b --mask_seed=7 --mask_ratio=0.5 --output=drawn photo.jpg
    localmim visualize --checkpoint=runs/vit_b --sheet=overview.png --layer=4 *.jpg

One picture is drawn for each image. The first column shows the image, whole and masked. Each tapped layer has one
more column, its target above its prediction. HOG is drawn as strokes along the edges: a bright stroke is a strong
edge, and a white one an edge in all color channels. Normalized pixels are drawn as they are, and once more with the
mean and standard deviation of each target patch restored. Images are resized and center-cropped as in the evaluation.
--sheet draws all images in one picture, at the scale of one layer.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags
from ml_collections import ConfigDict

from localmim_jax.cli.images import free_names, save
from localmim_jax.errors import ConfigError
from localmim_jax.recipes import common_flags

if TYPE_CHECKING:
    from localmim_jax.api import Reconstruction

POSITIONAL = "images"


def define_flags(values: flags.FlagValues) -> None:
    common_flags.define_checkpoint(values)
    common_flags.define_image_files(values)
    flags.DEFINE_string("output", "pictures", "directory to write to: NAME.png for NAME.jpg", flag_values=values)
    flags.DEFINE_integer("mask_seed", 0, "seed of the mask", flag_values=values)
    flags.DEFINE_float(
        "mask_ratio", None, "masked fraction of the image; default: as in the config", flag_values=values
    )
    flags.DEFINE_string("sheet", None, "PNG file to write: all images at one scale", flag_values=values)
    flags.DEFINE_integer("layer", 0, "tapped layer of --sheet; 0: the second tap", flag_values=values)
    common_flags.define_resize(values)
    common_flags.define_standard_merging(values)


def main(options: flags.FlagValues) -> None:
    common_flags.require(options, checkpoint="runs/quickstart")
    common_flags.require_images(options)
    if options.layer and not options.sheet:
        raise ConfigError(f"--layer={options.layer} chooses the scale of a sheet: add --sheet=FILE.png")
    reconstructions = visualize(
        options.checkpoint,
        options.images,
        config=options.config,
        mask_seed=options.mask_seed,
        mask_ratio=options.mask_ratio,
        resize=options.resize,
        standard_merging=options.standard_merging,
    )
    if options.sheet:
        from localmim_jax.api import draw_sheet

        path = Path(options.sheet).expanduser()
        save(draw_sheet(reconstructions, options.layer), path)
        print(path)
        return
    for path, found in zip(free_names(options.images, Path(options.output).expanduser()), reconstructions, strict=True):
        save(found.draw(), path)
        print(path)


def visualize(
    checkpoint: str,
    images: Sequence[str],
    config: ConfigDict | None = None,
    mask_seed: int = 0,
    mask_ratio: float | None = None,
    resize: int | None = None,
    standard_merging: bool | None = None,
) -> "list[Reconstruction]":
    """The reconstruction of every image; arguments as the flags.

    All images have the same mask, so a picture does not depend on the others.

    Raises:
        ConfigError: no pre-trained decoders, no config, or an impossible ratio.
        DataError: an image cannot be read.
    """
    from localmim_jax.api import config_of, load

    config = config_of(checkpoint, config)
    if config.task != "pretrain":
        raise ConfigError(
            f"{checkpoint} is a {config.task} model, without decoders to reconstruct images: give a pre-training run"
        )
    model = load(checkpoint, config, standard_merging=standard_merging)
    return model.reconstruct(images, mask_seed, mask_ratio=mask_ratio, resize=resize)
