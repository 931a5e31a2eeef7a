"""Exact intersection over union of every class, over all pixels of all images at their original sizes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from localmim_jax.engine.task import Batch
from localmim_jax.errors import DataError, StorageError
from localmim_jax.segmentation import overlay

_PICTURE = 256  # pixels of a drawn image's long side


def confusion(truth: np.ndarray, found: np.ndarray, num_classes: int) -> np.ndarray:
    """Pixels by class in the truth (rows) and as found (columns): int64 [num_classes, num_classes].

    Labels of the truth outside 0 to num_classes - 1 are not counted. Both arrays have one shape.
    """
    truth, found = truth.ravel().astype(np.int64), found.ravel().astype(np.int64)
    counted = (truth >= 0) & (truth < num_classes)
    pairs = truth[counted] * num_classes + found[counted]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def scores(matrix: np.ndarray) -> dict[str, Any]:
    """{"mIoU", "mean_accuracy", "pixel_accuracy": floats, "iou", "accuracy": float64 [k]} of a confusion matrix.

    A class that is in neither truth nor prediction has no IoU (NaN), one that is not in the truth no accuracy; means
    are over the others, NaN where there are none.
    """
    right, truth, found = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    with np.errstate(invalid="ignore"):
        iou, accuracy = right / (truth + found - right), right / truth
        total = float(right.sum() / matrix.sum())
    return {
        "mIoU": _mean(iou),
        "mean_accuracy": _mean(accuracy),
        "pixel_accuracy": total,
        "iou": iou,
        "accuracy": accuracy,
    }


class MeanIoU:
    """Metric (see `engine.task`) over label maps.

    `update` takes outputs uint8 [b, H, W] and a batch with "mask" uint8 [b, H, W], "original" int32 [b, 2] (how much of
    both is an image), "id" and "image", as `data.segmentation` gives them.

    Args:
        class_names: one a class.
        num_pictures: images to draw, the first ones.
        results: file for the classes and the confusion matrix, by whoever is told one; None writes none.
        directory: likewise for predictions as masks.
        key_of: (id) -> the image's name within its dataset.
        stored: labels -> values as the dataset's own masks have them.
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
            truth, found = batch["mask"][row, :h, :w], np.asarray(outputs[row, :h, :w])
            self.matrix += confusion(truth, found, self.num_classes)
            self._images += 1
            if self._directory is not None:
                path = self._directory / Path(self._key_of(int(batch["id"][row]))).with_suffix(".png")
                write_mask(path, self._stored(found), self._stored(np.arange(self.num_classes, dtype=np.uint8)))
            if len(self._rows) < self._num_pictures:
                self._rows.append((batch["image"][row], truth, found))

    def compute(self) -> dict[str, Any]:
        """{"mIoU", "mean_accuracy", "pixel_accuracy", "images", "class/<name>" (IoU of every class that occurs),
        "table" (text), and "pictures", uint8 [n, h, w, 3], with image, truth and prediction}.

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
            values["pictures"] = overlay.comparison(self._rows, self.class_names, _PICTURE)[None]
        return values

    def _write_confusion(self, path: Path) -> None:
        text = {"classes": self.class_names, "confusion": self.matrix.tolist()}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(text))
        except OSError as error:
            raise StorageError(f"{path} cannot be written ({error.strerror})") from error


def write_mask(path: Path, values: np.ndarray, of_classes: np.ndarray) -> None:
    """A PNG with these values, uint8 [h, w], shown in the colors of their classes.

    Args:
        path: of the file; folders above it are made.
        values: of the mask.
        of_classes: uint8 [k], the value of each class.

    Raises:
        StorageError: it cannot be written.
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
