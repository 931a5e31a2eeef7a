"""Detect objects in your images: a picture of each and one JSON file.

    localmim detect --checkpoint=runs/quickstart_detect photo.jpg holiday/*.jpg
    localmim detect --checkpoint=runs/swin_b_hog_400ep_coco --score=0.3 --output=found photo.jpg
    localmim detect --checkpoint=weights.npz --config=configs/swin_b_hog_400ep_coco.py \\
        --categories=coco/annotations/instances_val2017.json photo.jpg

Pictures show what scores at least --score; they are as large as the images, or 640 pixels long where those are smaller.
`detections.json` holds every detection of the model (config.model.score_threshold and up) in COCO's format: "images"
numbered from 1, "categories", and "annotations" with box, mask as run lengths, and score; its "annotations" alone are
COCO's results format. Images are resized as for the evaluation of the config.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict
from PIL import Image

from localmim_jax.errors import ConfigError, DataError
from localmim_jax.recipes import common_flags

POSITIONAL = "images"
RESULTS = "detections.json"


def define_flags(values: flags.FlagValues) -> None:
    common_flags.define_checkpoint(values)
    common_flags.define_image_files(values)
    flags.DEFINE_string("output", "detections", "directory to write to: NAME.png for NAME.jpg", flag_values=values)
    flags.DEFINE_float("score", 0.5, "least score of a detection that is drawn", flag_values=values)
    flags.DEFINE_string(
        "categories", "", "COCO JSON that names the classes; default: what the run trained on", flag_values=values
    )


def main(options: flags.FlagValues) -> None:
    common_flags.require(options, checkpoint="runs/quickstart_detect")
    common_flags.require_images(options)
    if not 0 <= options.score <= 1:
        raise ConfigError(f"--score={options.score}: it must be from 0 to 1")
    from localmim_jax.cli.images import free_names, read, save
    from localmim_jax.data.decode import to_array
    from localmim_jax.detection.coco_ap import to_results
    from localmim_jax.detection.render import LEGIBLE, draw
    from localmim_jax.files import write_json

    for image in options.images:  # before the first is drawn, every one is known to be readable
        read(image)
    directory = Path(options.output).expanduser()
    paths = free_names(options.images, directory)
    detector = Detector(options.checkpoint, options.config, options.categories)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    found_on = detector(to_array(read(image)) for image in options.images)
    for path, name, (pixels, found) in zip(paths, options.images, found_on, strict=True):
        size = pixels.shape[0], pixels.shape[1]
        images.append({"id": len(images) + 1, "file_name": name, "height": size[0], "width": size[1]})
        for entry in to_results(found, len(images), detector.category_ids, size):
            annotations.append({"id": len(annotations) + 1, **entry})
        save(draw(pixels, found, detector.class_names, max(LEGIBLE, *size), options.score), path)
        print(f"{path}: {found['scores'].size} found, {int((found['scores'] >= options.score).sum())} drawn")
    content = {"images": images, "annotations": annotations, "categories": detector.categories}
    write_json(directory / RESULTS, content)
    print(directory / RESULTS)


class Detector:
    """A trained detector, ready for images of any size.

    Args:
        checkpoint: a run directory, one of its checkpoints, or a file.
        config: None for that of the run the checkpoint belongs to.
        categories: COCO's JSON with the classes; "" for what the run trained on.

    Raises:
        ConfigError: no detector, no config, or classes that are not the model's.
        DataError: something cannot be read.
    """

    def __init__(self, checkpoint: str, config: ConfigDict | None = None, categories: str = ""):
        import jax

        from localmim_jax.api import config_of, fill_model
        from localmim_jax.convert import files
        from localmim_jax.detection import task
        from localmim_jax.params import merge
        from localmim_jax.tasks import initialize

        place, config = files.local_path(checkpoint), config_of(checkpoint, config)
        if config.task != "detect":
            raise ConfigError(f"{checkpoint} is a {config.task} model, which finds no objects: give a detector")
        weights = initialize.read(checkpoint)
        if weights.about.kind != "detector":
            raise ConfigError(f"{checkpoint} holds no detector ({weights.about.kind}): train one first")
        trained_for = weights.arrays["box_head/scores/bias"].size - 1
        self.category_ids, self.class_names = _categories(place, categories)
        for what, count in (("config", config.model.num_classes), ("categories", len(self.category_ids))):
            if count != trained_for:
                raise ConfigError(f"{checkpoint} tells {trained_for} classes apart, and its {what} name {count}")
        self._image_size = tuple(config.image_size)
        self._transform = task.eval_transform(config)
        graphdef, self._params, model_state = fill_model(config, weights)
        normalize = task.normalizer(config)

        @jax.jit
        def compute(params: Any, batch: Any) -> dict[str, jax.Array]:
            return merge(graphdef, params, model_state).detect(normalize(batch), batch["size"])

        self._compute = compute

    @property
    def categories(self) -> list[dict[str, Any]]:
        """As COCO lists them."""
        named = zip(self.category_ids, self.class_names, strict=True)
        return [{"id": number, "name": name} for number, name in named]

    def __call__(self, pictures: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """(picture, what is on it) of each: "boxes" float32 [n, 4] in its pixels, "scores", "labels" [n], "masks"
        float32 [n, 28, 28] over each box; best first."""
        import jax

        from localmim_jax.detection.batches import shape_for
        from localmim_jax.detection.coco_ap import to_original

        for pixels in pictures:
            shape = shape_for((pixels.shape[0], pixels.shape[1]), self._image_size)
            example = self._transform.of(Image.fromarray(pixels), shape)
            batch = {name: example[name][None] for name in ("image", "size")}
            outputs = {name: array[0] for name, array in jax.device_get(self._compute(self._params, batch)).items()}
            found = {name: outputs[name][outputs["valid"]] for name in ("boxes", "scores", "labels", "masks")}
            found["boxes"] = to_original(found["boxes"], example["size"], pixels.shape[:2])
            yield pixels, found


def _categories(place: Path, file: str) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """(COCO's ids, names) of the labels, from a file or from the run that `place` belongs to."""
    import json

    from localmim_jax.detection.coco import categories_of
    from localmim_jax.detection.task import CATEGORIES

    places = [Path(file).expanduser()] if file else [folder / CATEGORIES for folder in (place, *place.parents[:2])]
    found = [path for path in places if path.is_file()]
    if not found:
        what = f"{file} is no file" if file else f"{place} has no {CATEGORIES}"
        raise DataError(f"{what}: name the classes with --categories=FILE, any JSON of COCO's with categories")
    try:
        content = json.loads(found[0].read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{found[0]} cannot be read as JSON ({error})") from error
    return categories_of(content, found[0])
