"""COCO's average precision of boxes and masks, computed by pycocotools, and results in COCO's JSON format."""

import contextlib
import dataclasses
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from localmim_jax.detection import render
from localmim_jax.detection.coco_masks import encoded, mask_area
from localmim_jax.detection.paste import paste
from localmim_jax.engine.task import Batch
from localmim_jax.errors import DataError
from localmim_jax.files import write_json

_NAMES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")  # the first six of pycocotools' twelve numbers
_KINDS = {"box": "bbox", "mask": "segm"}


@dataclasses.dataclass(frozen=True)
class Categories:
    """COCO's id and the name of each label."""

    ids: tuple[int, ...]
    names: tuple[str, ...]


class CocoAP:
    """Metric (see `engine.task`): collects detections as COCO's results and evaluates them at the end.

    `update` takes the outputs of `MaskRCNN.detect` and a batch of `DetectionEvalTransform` with "id", the index of the
    image.

    Args:
        dataset: () -> the split as COCO's JSON.
        image_ids: (index) -> COCO's id of the image.
        categories: categories of the labels.
        results: file for the results; None writes none.
        num_pictures: number of images to draw.
    """

    def __init__(
        self,
        dataset: Callable[[], dict[str, Any]],
        image_ids: Callable[[int], int],
        categories: Categories,
        results: Path | None = None,
        num_pictures: int = 0,
    ):
        self._dataset, self._image_ids, self._categories = dataset, image_ids, categories
        self._file, self._num_pictures = results, num_pictures
        self.results: list[dict[str, Any]] = []
        self._images: list[int] = []
        self._crowded = 0
        self._pictures: list[np.ndarray] = []

    def update(self, outputs: Mapping[str, np.ndarray], batch: Batch) -> None:
        for row, index in enumerate(batch["id"]):
            size, original = batch["size"][row], batch["original"][row]
            valid = outputs["valid"][row]
            found = {key: outputs[key][row][valid] for key in ("boxes", "scores", "labels", "masks")}
            found["boxes"] = to_original(found["boxes"], size, original)
            image_id = self._image_ids(int(index))
            self._images.append(image_id)
            self._crowded += int(outputs["survivors"][row] > len(valid))
            entries = to_results(found, image_id, self._categories.ids, (int(original[0]), int(original[1])))
            self.results += entries
            if len(self._pictures) < self._num_pictures and "image" in batch:
                h, w = (round(float(side)) for side in size)
                image = batch["image"][row][:h, :w]
                at_size = found | {"boxes": to_original(found["boxes"], original, (h, w))}
                self._pictures.append(render.draw(image, at_size, self._categories.names, render.LEGIBLE))

    def compute(self) -> dict[str, Any]:
        """{"box/AP", "box/AP50", ..., "mask/AP", ...} in 0..1 (NaN where no object has that size), "images",
        "detections" (mean per image), "crowded" (images with more detections than the model returns), and
        "pictures", uint8 [n, h, w, 3].

        Raises:
            DataError: there was no image.
            StorageError: the results cannot be written.
        """
        if not self._images:
            raise DataError("no image was evaluated; check eval.split")
        if self._file is not None:
            write_json(self._file, self.results, indent=None)
        dataset = self._dataset()
        values: dict[str, Any] = {}
        for kind, of_coco in _KINDS.items():
            numbers = average_precision(dataset, self.results, of_coco, self._images)
            values |= {f"{kind}/{name}": number for name, number in numbers.items()}
        values["images"] = float(len(self._images))
        values["detections"] = len(self.results) / len(self._images)
        values["crowded"] = float(self._crowded)
        if self._pictures:
            values["pictures"] = render.grid(self._pictures)[None]
        return values


def average_precision(
    dataset: dict[str, Any], results: Sequence[dict[str, Any]], kind: str, image_ids: Sequence[int]
) -> dict[str, float]:
    """The first six numbers of COCO's evaluation, in 0..1; NaN where undefined.

    Every object with a box counts for the AP of boxes. For the AP of masks, one without a usable mask is a crowd that
    fills its box: detections on it count neither as right nor as wrong.

    Args:
        dataset: COCO's JSON of the split, in order (`coco_json.put_in_order`).
        results: detections in COCO's format.
        kind: "bbox" or "segm".
        image_ids: COCO's ids of the evaluated images.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its results
        ground_truth = COCO()
        ground_truth.dataset = {"info": {}, **dataset} | ({"annotations": _masked(dataset)} if kind == "segm" else {})
        ground_truth.createIndex()
        # Copies: pycocotools writes areas and ids into what it is given.
        found = ground_truth.loadRes([dict(entry) for entry in results]) if results else COCO()
        evaluation = COCOeval(ground_truth, found, kind)
        evaluation.params.imgIds = sorted(image_ids)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    numbers = (float(value) for value in evaluation.stats[: len(_NAMES)])
    # pycocotools says -1 where there is nothing to find.
    return {name: value if value >= 0 else float("nan") for name, value in zip(_NAMES, numbers, strict=True)}


def _masked(dataset: dict[str, Any]) -> list[dict[str, Any]]:
    """The annotations with pycocotools' run lengths. A mask may be empty: polygons can be thinner than a pixel."""
    from pycocotools import mask as coco_mask

    sizes = {image["id"]: (image["height"], image["width"]) for image in dataset["images"]}
    found = []
    for annotation in dataset["annotations"]:
        size, mask = sizes[annotation["image_id"]], annotation["segmentation"]
        if mask_area(mask, *size):
            found.append(annotation | {"segmentation": encoded(mask, *size)})
            continue
        left, top, width, height = annotation["bbox"]
        corner = math.floor(left), math.floor(top)
        box = [*corner, math.ceil(left + width) - corner[0], math.ceil(top + height) - corner[1]]
        region = coco_mask.frPyObjects(np.array([box], np.float64), *size)[0]
        found.append(annotation | {"segmentation": region, "iscrowd": 1})
    return found


def to_original(
    boxes: np.ndarray, size: Sequence[float] | np.ndarray, original: Sequence[float] | np.ndarray
) -> np.ndarray:
    """Boxes [n, 4] of an image resized to `size` (h, w), in pixels of the `original` (h, w); float32."""
    across, down = float(original[1]) / float(size[1]), float(original[0]) / float(size[0])
    return (np.asarray(boxes, np.float64) * (across, down, across, down)).astype(np.float32)


def to_results(
    found: Mapping[str, np.ndarray], image_id: int, category_ids: Sequence[int], size: tuple[int, int]
) -> list[dict[str, Any]]:
    """One image's detections in COCO's results format: category, box [left, top, width, height], score and mask.

    Args:
        found: "boxes" [n, 4] in pixels, "scores", "labels" [n], "masks" [n, s, s] of probabilities over each box.
        image_id: COCO's.
        category_ids: of the labels.
        size: (h, w) of the image.
    """
    from pycocotools import mask as coco_mask

    entries = []
    for box, score, label, mask in zip(found["boxes"], found["scores"], found["labels"], found["masks"], strict=True):
        whole = paste(mask, box, size)
        run_lengths = coco_mask.encode(np.asfortranarray(whole))
        left, top, right, bottom = map(float, box)
        entries.append(
            {
                "image_id": image_id,
                "category_id": int(category_ids[label]),
                "bbox": [left, top, right - left, bottom - top],
                "score": float(score),
                "segmentation": {"size": list(size), "counts": run_lengths["counts"].decode()},
            }
        )
    return entries
