"""A picture of what a pre-training model reconstructs: input, masked input, and each scale's target and prediction."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from localmim_jax.errors import DataError
from localmim_jax.evals import drawing

_SMALLEST_PANEL = 160  # pixels of a panel's shorter side
_SMALLEST_GLYPH = 6  # pixels of a drawn HOG cell
VARIANCE_EPSILON = 1e-6  # of `targets`, which this room does without


@dataclasses.dataclass(frozen=True)
class TargetDescription:
    """What the arrays of a batch mean.

    Attributes:
        kind: "hog" or "pixels".
        bins: orientation bins of HOG.
        cells: side of a target cell in image pixels, one a scale; each divides the image.
        channels: of the image.
    """

    kind: str
    bins: int
    cells: tuple[int, ...]
    channels: int

    def heading(self, scale: int) -> str:
        return f"{'HOG' if self.kind == 'hog' else 'normalized pixels'} {self.cells[scale]} px"


class Reconstruction:
    """Metric (see `engine.task`): keeps the first `num_images` examples and draws them.

    `update` takes a batch with "image" uint8 [b, h, w, c] and outputs {"mask": [b, g_h, g_w] (1 = masked), and for
    every scale i "target/<i>" and "prediction/<i>": [b, cells of that scale, values]}.
    """

    def __init__(self, description: TargetDescription, num_images: int):
        self.description, self.num_images = description, num_images
        self._examples: list[dict[str, np.ndarray]] = []

    def update(self, outputs: Mapping[str, Any], batch: Mapping[str, np.ndarray]) -> None:
        arrays = {name: np.asarray(value) for name, value in outputs.items()} | {"image": batch["image"]}
        for row in range(min(len(batch["image"]), self.num_images - len(self._examples))):
            self._examples.append({name: array[row].copy() for name, array in arrays.items()})

    def compute(self) -> dict[str, np.ndarray]:
        """{"grid": uint8 [1, h, w, 3]}, one row per example. Raises `DataError` if there was none."""
        if not self._examples:
            raise DataError("no example to draw; check eval.reconstruction and data.name")
        return {"grid": draw_examples(self._examples, self.description)[None]}


def draw_examples(examples: list[dict[str, np.ndarray]], description: TargetDescription) -> np.ndarray:
    """The labeled grid [h, w, 3] of single examples: the arrays of `Reconstruction.update` without their first axis.

    In a prediction, cells without anything masked show the image: nothing is predicted there.
    """
    panel = panel_size(examples[0]["image"].shape[:2], description)
    headings = ["input\n", "masked\ninput"]
    for scale in range(len(description.cells)):
        headings += [f"{description.heading(scale)}\ntarget", f"{description.heading(scale)}\nprediction"]
    return drawing.labeled_grid([_row(example, description, panel) for example in examples], headings, panel)


def draw_one(
    example: dict[str, np.ndarray],
    description: TargetDescription,
    layers: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
) -> np.ndarray:
    """One example large: a column for every tap, its target above its prediction.

    Of pixel targets, a third row shows the predictions with every patch's mean and deviation put back. These are the
    target's own, which no model predicts, and the caption says so.

    Args:
        example: as in `draw_examples`.
        description: of the targets.
        layers: the tap of every scale, for the headings.
        mean, std: of the normalization that the model's input had, a value a channel, for pixels in 0..1.

    Returns:
        uint8 [h, w, 3].
    """
    panel = panel_size(example["image"].shape[:2], description)
    panels = _row(example, description, panel)
    rows, sides = [panels[0::2], panels[1::2]], ["input, targets", "masked, predictions"]
    headings = ["image"] + [f"layer {layer}\n{description.heading(scale)}" for scale, layer in enumerate(layers)]
    caption = "In the predictions, the patches that the encoder sees show the image."
    if description.kind == "pixels":
        scales = range(len(description.cells))
        rows.append([panels[0], *(_in_color(example, scale, description, mean, std) for scale in scales)])
        sides.append("predictions, restored")
        caption += (
            "\nLowest row: each predicted patch with the mean and the deviation of its target, which are not predicted:"
            "\nan empty prediction, too, would show the mean color of every patch."
        )
    return drawing.labeled_grid(rows, headings, panel, sides, caption)


def draw_sheet(examples: Sequence[dict[str, np.ndarray]], description: TargetDescription, scale: int) -> np.ndarray:
    """Several examples at one scale, a column each: image, visible patches, prediction, target.

    Args:
        examples: as in `draw_examples`, all of one size.
        description: of the targets.
        scale: index of the scale.

    Returns:
        uint8 [h, w, 3].
    """
    panel = panel_size(examples[0]["image"].shape[:2], description)
    columns = [_row(example, description, panel) for example in examples]
    rows = [[column[i] for column in columns] for i in (0, 1, 3 + 2 * scale, 2 + 2 * scale)]
    sides = ["image", "visible", "prediction", "target"]
    return drawing.labeled_grid(rows, ("",) * len(examples), panel, sides)


def _in_color(
    example: dict[str, np.ndarray],
    scale: int,
    description: TargetDescription,
    mean: Sequence[float],
    std: Sequence[float],
) -> np.ndarray:
    """The image with its masked cells predicted: normalized pixels under their target's own mean and deviation."""
    image, cell = example["image"], description.cells[scale]
    h, w, c = image.shape
    grid = h // cell, w // cell
    center, spread = np.asarray(mean, np.float32), np.asarray(std, np.float32)

    def patches(picture: np.ndarray) -> np.ndarray:
        return picture.reshape(grid[0], cell, grid[1], cell, c).transpose(0, 2, 1, 3, 4).reshape(*grid, -1)

    own = patches((image.astype(np.float32) / 255 - center) / spread)
    deviation = np.sqrt(own.var(axis=-1, keepdims=True, ddof=1) + VARIANCE_EPSILON)
    predicted = example[f"prediction/{scale}"].astype(np.float32).reshape(own.shape)
    restored = predicted * deviation + own.mean(axis=-1, keepdims=True)
    picture = restored.reshape(*grid, cell, cell, c).transpose(0, 2, 1, 3, 4).reshape(h, w, c)
    picture = np.rint(np.clip((picture * spread + center) * 255, 0, 255)).astype(np.uint8)
    masked = drawing.enlarge(_coarsen_or_repeat(example["mask"], grid), (h, w)) > 0
    return drawing.rgb(np.where(masked[..., None], picture, image))


def _row(example: dict[str, np.ndarray], description: TargetDescription, panel: tuple[int, int]) -> list[np.ndarray]:
    image = drawing.rgb(example["image"])
    row = [image, drawing.masked_picture(image, example["mask"])]
    for scale, cell in enumerate(description.cells):
        grid = image.shape[0] // cell, image.shape[1] // cell
        predicted = _coarsen_or_repeat(example["mask"], grid) > 0
        target = example[f"target/{scale}"].astype(np.float32).reshape(*grid, -1)
        prediction = example[f"prediction/{scale}"].astype(np.float32).reshape(*grid, -1)
        drawn = [_picture(values, description, panel) for values in (target, prediction)]
        row += [drawn[0], drawing.show_visible(drawn[1], image, predicted)]
    return row


def _picture(values: np.ndarray, description: TargetDescription, panel: tuple[int, int]) -> np.ndarray:
    if description.kind == "hog":
        return drawing.hog_picture(values, description.bins, panel[0] // values.shape[0])
    return drawing.pixel_picture(values, description.channels)


def panel_size(image_size: tuple[int, int], description: TargetDescription) -> tuple[int, int]:
    """A multiple of the image's size in finest cells, large enough to read."""
    finest = min(description.cells)
    grid = image_size[0] // finest, image_size[1] // finest
    glyph = max(_SMALLEST_GLYPH if description.kind == "hog" else finest, -(-_SMALLEST_PANEL // min(grid)))
    return grid[0] * glyph, grid[1] * glyph


def _coarsen_or_repeat(mask: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """The mask at another grid: the share of masked patches in a coarser cell, the patch's own in a finer one."""
    if grid[0] >= mask.shape[0]:
        return drawing.enlarge(mask, grid)
    by = mask.shape[0] // grid[0], mask.shape[1] // grid[1]
    return mask.reshape(grid[0], by[0], grid[1], by[1]).mean(axis=(1, 3))
