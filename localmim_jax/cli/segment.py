"""Segment your images: a mask of classes and a drawing with a legend for each.

    localmim segment --checkpoint=runs/vit_b_1600ep_ade20k photo.jpg holiday/*.jpg
    localmim segment --checkpoint=runs/vit_b_1600ep_ade20k --ratios=0.75,1,1.25 --flip photo.jpg

NAME_classes.png has the size of the image and the values of the training masks, with a palette. NAME.png shows the
image in the colors of its classes, with a legend. Images are resized and scored as in the evaluation. --ratios
averages over several scales, and --flip over the image and its mirror image.
"""

from pathlib import Path

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from localmim_jax.cli.images import free_names, read, save
from localmim_jax.errors import ConfigError
from localmim_jax.recipes import common_flags

_MIN_SIDE = 480  # minimum long side of a drawing, in pixels

POSITIONAL = "images"


def define_flags(values: flags.FlagValues) -> None:
    common_flags.define_checkpoint(values)
    common_flags.define_image_files(values)
    flags.DEFINE_string("output", "segmented", "directory to write to", flag_values=values)
    flags.DEFINE_list(
        "ratios", [], "scales to average over, as in 0.75,1,1.25; default: as in the run", flag_values=values
    )
    flags.DEFINE_bool("flip", None, "average with the mirror image; default: as in the run", flag_values=values)


def main(options: flags.FlagValues) -> None:
    common_flags.require(options, checkpoint="runs/quickstart_segment")
    common_flags.require_images(options)
    from localmim_jax.api import load
    from localmim_jax.segmentation import miou, overlay
    from localmim_jax.segmentation.numbering import Numbering
    from localmim_jax.segmentation.task import mask_values

    config = run_config(options)
    for image in options.images:  # an unreadable image is reported before anything is computed
        read(image)
    paths = free_names(options.images, Path(options.output).expanduser())
    model = load(options.checkpoint, config)
    names = model.class_names
    numbering = Numbering(len(names), config.data.zero_ignored, mask_values(config))
    values = numbering.stored(np.arange(len(names), dtype=np.uint8))
    predictions = model.predictor(model.pixels(options.images))
    for path, (image, labels) in zip(paths, predictions, strict=True):
        miou.write_mask(path.with_name(f"{path.stem}_classes.png"), values[labels], values)
        save(overlay.with_legend(image, labels, names, max(_MIN_SIDE, *labels.shape)), path)
        print(path)


def run_config(options: flags.FlagValues) -> ConfigDict:
    """The config of the model, with --ratios and --flip in its evaluation."""
    from localmim_jax.api import config_of

    config = config_of(options.checkpoint, options.config)
    if config.task != "segment":
        raise ConfigError(
            f"{options.checkpoint} is a {config.task} model, not a segmentation model: give a segmentation run"
        )
    if options.ratios:
        try:
            config.eval.ratios = tuple(map(float, options.ratios))
        except ValueError as error:
            raise ConfigError(f"--ratios={','.join(options.ratios)}: numbers separated by commas are needed") from error
        if min(config.eval.ratios) <= 0:
            raise ConfigError(f"--ratios={','.join(options.ratios)}: factors above 0 are needed")
    if options.flip is not None:
        config.eval.flip = options.flip
    return config
