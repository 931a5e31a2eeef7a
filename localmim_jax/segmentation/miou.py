"""Mean intersection over union: exact, over all pixels of all images at their original sizes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from localmim_jax.engine.task import Batch
from localmim_jax.errors import DataError, StorageError
from localmim_jax.segmentation import overlay

_LONG_SIDE = 256  # of a drawn image, in pixels


def confusion(gt: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Number of pixels by ground-truth class (rows) and predicted class (columns): int64 [num_classes, num_classes].

    Both arrays have the same shape. Pixels whose ground truth is outside 0 to num_classes - 1 are not counted.
    """
    gt, predicted = gt.ravel().astype(np.int64), predicted.ravel().astype(np.int64)
    counted = (gt >= 0) & (gt < num_classes)
    pairs = gt[counted] * num_classes + predicted[counted]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def scores(matrix: np.ndarray) -> dict[str, Any]:
    """{"mIoU", "mean_accuracy", "pixel_accuracy": floats, "iou", "accuracy": float64 [k]} of a confusion matrix.

    A class that occurs in neither the ground truth nor the prediction has no IoU (NaN); a class that does not occur in
    the ground truth has no accuracy. Means are over the other classes, NaN without any.
    """
    correct, gt, predicted = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    with np.errstate(invalid="ignore"):
        iou, accuracy = correct / (gt + predicted - correct), correct / gt
        total = float(correct.sum() / matrix.sum())
    return {
        "mIoU": _mean(iou),
        "mean_accuracy": _mean(accuracy),
        "pixel_accuracy": total,
        "iou": iou,
        "accuracy": accuracy,
    }


class MeanIoU:
    """Metric (see `engine.task`) over label maps.

    `update` takes outputs uint8 [b, h, w] and a batch of `SegmentationEvalTransform`: "mask" uint8 [b, h, w],
    "original" int32 [b, 2] (the size of each image within both), "id" and "image".

    Args:
        class_names: name of each class.
        num_pictures: number of images to draw, the first ones.
        results: file for the classes and the confusion matrix; None writes none.
        directory: directory for predictions as masks; None writes none.
        key_of: (id) -> name of the image within its dataset.
        stored: labels -> values of the dataset's own masks.
    """

    def __init__(
        self,
        class_names: tuple[str, ...],
        num_pictures: int = 0,
        results: Path | None = None,
        directory: Path | None = None,
        key_of: Callable[[int], str] = str,
        stored: Callable[[np.ndarray], np.ndarray] = lambda labels: labels,
    ):
        self.class_names, self.num_classes = class_names, len(class_names)
        self.matrix = np.zeros((self.num_classes,) * 2, np.int64)
        self._results, self._directory = results, directory
        self._key_of, self._stored = key_of, stored
        self._num_pictures, self._images = num_pictures, 0
        self._rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def update(self, outputs: np.ndarray, batch: Batch) -> None:
        for row, (h, w) in enumerate(batch["original"]):
            gt, predicted = batch["mask"][row, :h, :w], np.asarray(outputs[row, :h, :w])
            self.matrix += confusion(gt, predicted, self.num_classes)
            self._images += 1
            if self._directory is not None:
                path = self._directory / Path(self._key_of(int(batch["id"][row]))).with_suffix(".png")
                write_mask(path, self._stored(predicted), self._stored(np.arange(self.num_classes, dtype=np.uint8)))
            if len(self._rows) < self._num_pictures:
                self._rows.append((batch["image"][row], gt, predicted))

    def compute(self) -> dict[str, Any]:
        """{"mIoU", "mean_accuracy", "pixel_accuracy", "images", "class/<name>" (IoU of every class that occurs),
        "table" (text), and "pictures", uint8 [n, h, w, 3], with image, ground truth and prediction}.

        Raises:
            DataError: no pixel was labeled.
            StorageError: predictions cannot be written.
        """
        if not self.matrix.sum():
            raise DataError("no pixel of the evaluated masks is labeled; check eval.split and data.zero_ignored")
        found = scores(self.matrix)
        values: dict[str, Any] = {key: found[key] for key in ("mIoU", "mean_accuracy", "pixel_accuracy")}
        values["images"] = float(self._images)
        named = list(zip(self.class_names, found["iou"], found["accuracy"], strict=True))
        values |= {f"class/{name}": float(iou) for name, iou, _ in named if not np.isnan(iou)}
        lines = [f"| {name} | {iou:.4f} | {accuracy:.4f} |" for name, iou, accuracy in named]
        values["table"] = "\n".join(["| class | IoU | accuracy |", "|---|---|---|", *lines])
        if self._results is not None:
            self._write_confusion(self._results)
        if self._rows:
            values["pictures"] = overlay.comparison(self._rows, self.class_names, _LONG_SIDE)[None]
        return values

    def _write_confusion(self, path: Path) -> None:
        text = {"classes": self.class_names, "confusion": self.matrix.tolist()}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(text))
        except OSError as error:
            raise StorageError(f"{path} cannot be written ({error.strerror})") from error


def write_mask(path: Path, values: np.ndarray, of_classes: np.ndarray) -> None:
    """Writes a mask as an indexed PNG in the colors of its classes.

    Args:
        path: the file; its directories are created.
        values: uint8 [h, w], values of the mask.
        of_classes: uint8 [k], value of each class.

    Raises:
        StorageError: the file cannot be written.
    """
    palette = np.zeros((256, 3), np.uint8)
    palette[of_classes] = overlay.colors(len(of_classes))
    picture = Image.fromarray(values)
    picture.putpalette(palette.tobytes())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    except OSError as error:
        raise StorageError(f"{path} cannot be written ({error.strerror or error})") from error


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")
