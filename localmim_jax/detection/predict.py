"""Detections on images outside a dataset: a trained detector, its classes, and results in COCO's format."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from localmim_jax.convert.weights import Weights
from localmim_jax.detection import task
from localmim_jax.detection.buckets import bucket_size
from localmim_jax.detection.coco_ap import Categories, to_original, to_results
from localmim_jax.detection.coco_json import categories_of, parse, read_bytes
from localmim_jax.errors import ConfigError, DataError
from localmim_jax.params import merge

Found = Mapping[str, np.ndarray]


class Predictor:
    """A trained detector for images of any size. Images are resized as in the evaluation of the config.

    Args:
        config: config of a detection run.
        model: (graph definition, parameters, model state) of the trained detector.
        categories: classes of the detector.
    """

    def __init__(self, config: ConfigDict, model: tuple[Any, Any, Any], categories: Categories):
        self.categories = categories
        self._image_size = tuple(config.image_size)
        self._transform = task.eval_transform(config)
        normalize = task.normalizer(config)
        graphdef, self._params, model_state = model

        @jax.jit
        def compute(params: Any, batch: Any) -> dict[str, jax.Array]:
            return merge(graphdef, params, model_state).detect(normalize(batch), batch["size"])

        self._compute = compute

    def __call__(self, images: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """(image, detections) of each uint8 image [h, w, 3].

        Detections are sorted by score: "boxes" float32 [n, 4] in pixels of the image, "scores" and "labels" [n], and
        "masks" float32 [n, 28, 28] over each box.
        """
        for pixels in images:
            shape = bucket_size((pixels.shape[0], pixels.shape[1]), self._image_size)
            example = self._transform.of(Image.fromarray(pixels), shape)
            batch = {name: example[name][None] for name in ("image", "size")}
            outputs = {name: array[0] for name, array in jax.device_get(self._compute(self._params, batch)).items()}
            found = {name: outputs[name][outputs["valid"]] for name in ("boxes", "scores", "labels", "masks")}
            found["boxes"] = to_original(found["boxes"], example["size"], pixels.shape[:2])
            yield pixels, found


class Results:
    """Detections on several images as one COCO dataset with scores.

    Args:
        categories: classes of the detections.
    """

    def __init__(self, categories: Categories):
        self._categories = categories
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, name: str, size: tuple[int, int], found: Found) -> None:
        """Appends the detections on the image of this file name and size (h, w). Images are numbered from 1."""
        number = len(self._images) + 1
        self._images.append({"id": number, "file_name": name, "height": size[0], "width": size[1]})
        for entry in to_results(found, number, self._categories.ids, size):
            self._annotations.append({"id": len(self._annotations) + 1, **entry})

    def to_coco(self) -> dict[str, Any]:
        """{"images", "annotations", "categories"} in COCO's format."""
        named = zip(self._categories.ids, self._categories.names, strict=True)
        categories = [{"id": number, "name": name} for number, name in named]
        return {"images": self._images, "annotations": self._annotations, "categories": categories}


def require_detector(checkpoint: str, config: ConfigDict, weights: Weights, categories: Categories) -> None:
    """Raises ConfigError unless the weights are a detector with as many classes as its config and its categories."""
    if weights.info.kind != "detector":
        raise ConfigError(f"{checkpoint} holds no detector ({weights.info.kind}): train one first")
    trained_for = weights.arrays["box_head/scores/bias"].size - 1
    for what, count in (("config", config.model.num_classes), ("categories", len(categories.ids))):
        if count != trained_for:
            raise ConfigError(f"{checkpoint} has {trained_for} classes, but its {what} name {count}")


def read_categories(place: Path, file: str = "") -> Categories:
    """The classes in a COCO JSON file, or else those recorded by the run that `place` belongs to.

    Raises:
        DataError: there is no such file, or it lists no categories.
    """
    places = [Path(file).expanduser()] if file else [folder / task.CATEGORIES for folder in (place, *place.parents[:2])]
    found = [path for path in places if path.is_file()]
    if not found:
        what = f"{file} is no file" if file else f"{place} has no {task.CATEGORIES}"
        raise DataError(f"{what}: name the classes with --categories=FILE, any JSON of COCO's with categories")
    content = read_bytes(found[0], "give it read rights")
    return Categories(*categories_of(parse(content, found[0]), found[0]))
