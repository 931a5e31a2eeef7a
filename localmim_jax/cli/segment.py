"""Segment your images: a mask of classes and a picture with a legend for each.

    localmim segment --checkpoint=runs/vit_b_1600ep_ade20k photo.jpg holiday/*.jpg
    localmim segment --checkpoint=runs/vit_b_1600ep_ade20k --ratios=0.75,1,1.25 --flip photo.jpg

NAME_classes.png is as large as the image and holds the values that the training masks have, with a palette; NAME.png is
the image under the colors of its classes, whose names are below it. Images are resized and looked at as the run's
evaluation does; --ratios and --flip average over several scales and over the mirror image.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags, logging
from ml_collections import ConfigDict

from localmim_jax.cli.images import free_names, read, save
from localmim_jax.data.decode import size_of, to_array
from localmim_jax.errors import ConfigError, DataError
from localmim_jax.recipes import common_flags

_SHOWN = 480  # pixels that a picture's long side has at least

POSITIONAL = "images"


def define_flags(values: flags.FlagValues) -> None:
    common_flags.define_checkpoint(values)
    common_flags.define_image_files(values)
    flags.DEFINE_string("output", "segmented", "directory to write to", flag_values=values)
    flags.DEFINE_list("ratios", [], "scales to average over, as in 0.75,1,1.25; default: the run's", flag_values=values)
    flags.DEFINE_bool("flip", None, "average with the mirror image; default: as the run", flag_values=values)


def main(options: flags.FlagValues) -> None:
    common_flags.require(options, checkpoint="runs/quickstart_segment")
    common_flags.require_images(options)
    from localmim_jax.segmentation import miou, overlay
    from localmim_jax.segmentation.sources import stored

    config = _config(options)
    names = class_names(config, options.checkpoint)
    values = stored(np.arange(len(names), dtype=np.uint8), config.data.zero_ignored)
    found = segment(options.checkpoint, options.images, config)
    paths = free_names(options.images, Path(options.output).expanduser())
    for path, (image, labels) in zip(paths, found, strict=True):
        miou.write_mask(path.with_name(f"{path.stem}_classes.png"), values[labels], values)
        save(overlay.with_legend(image, labels, names, max(_SHOWN, *labels.shape)), path)
        print(path)


def segment(checkpoint: str, images: Sequence[str], config: ConfigDict) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(uint8 image [h, w, 3], its labels uint8 [h, w]) of every image, each of which is looked at before the first.

    Raises:
        ConfigError: the checkpoint does not fill the config's model.
        DataError: an image cannot be read.
    """
    import jax

    from localmim_jax import params as trees
    from localmim_jax.segmentation import task
    from localmim_jax.segmentation.sliding import labels_at

    for image in images:
        read(image)
    graphdef, params, model_state = load_model(config, checkpoint)
    transform, scores = task.eval_transform(config), task.score_function(config)

    def compute(params: Any, model_state: Any, batch: Any, size: tuple[int, int]) -> jax.Array:
        found = scores(trees.merge(graphdef, params, model_state), batch)
        return labels_at(found, jax.numpy.array([size]), size)[0]

    compiled = jax.jit(compute, static_argnums=3)
    params, model_state = jax.device_put((params, model_state))
    for image in images:
        picture = read(image)
        batch = {name: array[None] for name, array in transform.images(picture).items()}
        yield to_array(picture), np.asarray(compiled(params, model_state, batch, size_of(picture)))


def load_model(config: ConfigDict, checkpoint: str) -> tuple[Any, Any, Any]:
    """(graph definition, parameters, statistics) of a segmentation model, all of them from the checkpoint.

    Raises:
        ConfigError, DataError, StorageError: it cannot be read, does not fill the model, or is of another kind.
    """
    from localmim_jax.api import fill_model
    from localmim_jax.segmentation import task
    from localmim_jax.tasks import from_config, initialize

    task.check_settings(config, from_config.segmenter_config(config))
    weights = initialize.read(checkpoint, config.checkpoint.standard_merging)
    if weights.about.kind != "segmenter":
        raise ConfigError(f"{checkpoint} segments nothing ({weights.about.kind}): train it with a segmentation recipe")
    return fill_model(config, weights, whole=True)


def class_names(config: ConfigDict, checkpoint: str) -> tuple[str, ...]:
    """The classes' names: as the run recorded them, else from its dataset, else numbers."""
    from localmim_jax.convert import files
    from localmim_jax.segmentation import task
    from localmim_jax.tasks import initialize

    count = config.model.num_classes
    try:
        file = initialize.run_directory(files.local_path(checkpoint)) / task.RESULTS
        names = tuple(map(str, json.loads(file.read_text())["classes"]))
    except (DataError, OSError, ValueError, KeyError, TypeError):
        try:
            names = task.open_split(config, config.data.split).class_names
        except DataError as error:
            logging.warning("classes are only numbered: %s", error)
            names = tuple(f"class {i + 1}" for i in range(count))
    if len(names) != count:
        raise ConfigError(f"{checkpoint} names {len(names)} classes, and its model has {count}")
    return names


def _config(options: flags.FlagValues) -> ConfigDict:
    from localmim_jax.api import config_of

    config = config_of(options.checkpoint, options.config)
    if config.task != "segment":
        raise ConfigError(
            f"{options.checkpoint} is a {config.task} model, which segments nothing: give a segmentation run"
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
