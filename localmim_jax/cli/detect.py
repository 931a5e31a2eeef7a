"""Detect objects in your images: a drawing of each and one JSON file.

    localmim detect --checkpoint=runs/quickstart_detect photo.jpg holiday/*.jpg
    localmim detect --checkpoint=runs/swin_b_hog_400ep_coco --score=0.3 --output=found photo.jpg
    localmim detect --checkpoint=weights.npz --config=configs/swin_b_hog_400ep_coco.py \\
        --categories=coco/annotations/instances_val2017.json photo.jpg

Drawings show detections with a score of at least --score; images smaller than 640 pixels are enlarged.
`detections.json` contains every detection of the model (config.model.score_threshold and above) in COCO's format:
"images" numbered from 1, "categories", and "annotations" with box, run-length mask and score. Its "annotations" alone
are COCO's results format. Images are resized as in the evaluation of the config.
"""

from pathlib import Path

from absl import flags

from localmim_jax.errors import ConfigError
from localmim_jax.recipes import common_flags

POSITIONAL = "images"
RESULTS = "detections.json"


def define_flags(values: flags.FlagValues) -> None:
    common_flags.define_checkpoint(values)
    common_flags.define_image_files(values)
    flags.DEFINE_string("output", "detections", "directory to write to: NAME.png for NAME.jpg", flag_values=values)
    flags.DEFINE_float("score", 0.5, "minimum score of a detection that is drawn", flag_values=values)
    flags.DEFINE_string(
        "categories",
        "",
        "COCO JSON with the class names; default: those of the run's training data",
        flag_values=values,
    )


def main(options: flags.FlagValues) -> None:
    common_flags.require(options, checkpoint="runs/quickstart_detect")
    common_flags.require_images(options)
    if not 0 <= options.score <= 1:
        raise ConfigError(f"--score={options.score}: it must be from 0 to 1")
    from localmim_jax.api import config_of, load
    from localmim_jax.cli.images import free_names, read, save
    from localmim_jax.detection.predict import Results
    from localmim_jax.detection.render import LEGIBLE, draw
    from localmim_jax.files import write_json

    for image in options.images:  # an unreadable image is reported before anything is computed
        read(image)
    directory = Path(options.output).expanduser()
    paths = free_names(options.images, directory)
    config = config_of(options.checkpoint, options.config)
    if config.task != "detect":
        raise ConfigError(f"{options.checkpoint} is a {config.task} model, not a detector: give a detection run")
    model = load(options.checkpoint, config, categories=options.categories)
    predictor = model.predictor
    results = Results(predictor.categories)
    predictions = predictor(model.pixels(options.images))
    for path, name, (pixels, found) in zip(paths, options.images, predictions, strict=True):
        size = pixels.shape[0], pixels.shape[1]
        results.add(name, size, found)
        save(draw(pixels, found, predictor.categories.names, max(LEGIBLE, *size), options.score), path)
        print(f"{path}: {found['scores'].size} found, {int((found['scores'] >= options.score).sum())} drawn")
    write_json(directory / RESULTS, results.to_coco())
    print(directory / RESULTS)
