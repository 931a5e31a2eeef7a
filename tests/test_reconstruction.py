"""The picture of reconstructions, on real photographs: which examples, which panels, and what a prediction changes."""

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from PIL import Image
from skimage import data

from localmim_jax.errors import DataError
from localmim_jax.evals import drawing
from localmim_jax.evals.reconstruction import (
    Reconstruction,
    TargetDescription,
    draw_examples,
    draw_one,
    panel_size,
)
from localmim_jax.method.targets import make_targets
from tests.defaults import target_config

CELLS = (4, 8, 16, 32)


def photographs(size: tuple[int, int], channels: int) -> np.ndarray:
    pictures = [data.astronaut(), data.coffee(), data.chelsea()]
    resized = [np.asarray(Image.fromarray(p).resize((size[1], size[0]))) for p in pictures]
    return np.stack(resized)[..., :channels]


def example_batch(kind: str, size: tuple[int, int], channels: int, bins: int = 9):
    """(outputs, batch, description) of three photographs with 16 px patches, the first rows of patches masked."""
    images = photographs(size, channels)
    targets = make_targets(jnp.asarray(images, jnp.float32) / 255, target_config(kind, CELLS, bins))
    mask = np.zeros((3, size[0] // 16, size[1] // 16), np.float32)
    mask[:, : size[0] // 32] = 1
    outputs = {"mask": mask}
    for scale, target in enumerate(targets):
        outputs[f"target/{scale}"] = np.asarray(target)
        outputs[f"prediction/{scale}"] = np.zeros(target.shape, ml_dtypes.bfloat16)
    return outputs, {"image": images}, TargetDescription(kind, bins, CELLS, channels)


def panel(grid: np.ndarray, column: int, size: tuple[int, int], rows: int = 1) -> np.ndarray:
    """The panel of a column in the first of the grid's rows."""
    (h, w), gap = size, drawing.GAP
    top, left = grid.shape[0] - rows * (h + gap), gap + column * (w + gap)
    return grid[top : top + h, left : left + w]


@pytest.mark.parametrize("kind", ["hog", "pixels"])
@pytest.mark.parametrize(("size", "channels"), [((64, 64), 3), ((96, 128), 1)])
def test_grid_of_photographs(kind, size, channels):
    outputs, batch, description = example_batch(kind, size, channels)
    metric = Reconstruction(description, num_images=2)
    metric.update(outputs, batch)
    grid = metric.compute()["grid"]
    assert grid.dtype == np.uint8
    assert grid.shape[0] == 1
    h, w = panel_size(size, description)
    assert h * size[1] == w * size[0]
    assert min(h, w) >= 160
    assert grid.shape[2] == drawing.GAP + 10 * (w + drawing.GAP)

    top = panel(grid[0], 0, (h, w), rows=2)
    np.testing.assert_array_equal(top, drawing.resize(drawing.rgb(batch["image"][0]), (h, w)))
    masked = panel(grid[0], 1, (h, w), rows=2)
    assert (masked[: h // 2] == 128).all()
    np.testing.assert_array_equal(masked[h // 2 :], top[h // 2 :])
    for scale in range(4):
        target, prediction = (panel(grid[0], 2 + 2 * scale + i, (h, w), rows=2) for i in range(2))
        assert target[: h // 2].std() > 20
        assert prediction[: h // 2].std() == 0
        np.testing.assert_array_equal(prediction[-h // 4 :], top[-h // 4 :])


def test_only_masked_cells_show_the_prediction():
    outputs, batch, description = example_batch("hog", (64, 64), 3)
    example = {name: value[0] for name, value in outputs.items()} | {"image": batch["image"][0]}
    before = draw_examples([example], description)
    example["prediction/1"] = example["prediction/1"].astype(np.float32)
    example["prediction/1"][32:] = 1  # the lower half of 8 x 8 cells is visible
    np.testing.assert_array_equal(draw_examples([example], description), before)
    example["prediction/1"][31] = 1
    assert (draw_examples([example], description) != before).any()


def test_a_coarse_cell_that_is_masked_in_part_shows_its_prediction():
    outputs, batch, description = example_batch("pixels", (64, 64), 3)
    outputs["mask"][:] = 0
    outputs["mask"][:, 0, 0] = 1
    example = {name: value[0] for name, value in outputs.items()} | {"image": batch["image"][0]}
    grid = draw_examples([example], description)
    side, _ = panel_size((64, 64), description)
    coarsest = panel(grid, 9, (side, side))
    assert (coarsest[: side // 2, : side // 2] == 128).all()
    assert coarsest[: side // 2, side // 2 :].std() > 5


def test_first_examples_are_kept_over_several_batches():
    outputs, batch, description = example_batch("hog", (64, 64), 3)
    whole = Reconstruction(description, num_images=2)
    whole.update(outputs, batch)
    parts = Reconstruction(description, num_images=2)
    for row in range(3):
        part = {name: value[row : row + 1].copy() for name, value in outputs.items()}
        image = batch["image"][row : row + 1].copy()
        parts.update(part, {"image": image})
        image[:] = 0
    np.testing.assert_array_equal(parts.compute()["grid"], whole.compute()["grid"])


def test_no_example_is_an_error():
    _, _, description = example_batch("hog", (64, 64), 3)
    with pytest.raises(DataError, match="no example to draw"):
        Reconstruction(description, num_images=2).compute()


@pytest.mark.parametrize("kind", ["hog", "pixels"])
def test_one_example_large(kind):
    """Targets above predictions; a perfect prediction of pixels, restored, is the image itself."""
    size, mean, std = (64, 64), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    images = photographs(size, 3)[:1]
    targets = make_targets(
        (jnp.asarray(images) / 255.0 - jnp.array([[[mean]]])) / jnp.array([[[std]]]), target_config(kind, CELLS, 9)
    )
    example = {"image": images[0], "mask": np.float32([[1, 1, 0, 0]] * 4)}
    for scale, target in enumerate(targets):
        example |= {f"target/{scale}": np.asarray(target[0]), f"prediction/{scale}": np.asarray(target[0])}
    grid = draw_one(example, TargetDescription(kind, 9, CELLS, 3), (2, 4, 10, 12), mean, std)
    side, _ = panel_size(size, TargetDescription(kind, 9, CELLS, 3))
    tops = np.flatnonzero((grid == drawing.resize(images[0], (side, side))[0, 0]).all(-1).any(1))
    top = tops[0]
    left = np.flatnonzero((grid[top] != 255).any(-1))[0]

    def panel_at(row: int, column: int) -> np.ndarray:
        y, x = top + row * (side + drawing.GAP), left + column * (side + drawing.GAP)
        return grid[y : y + side, x : x + side]

    picture = drawing.resize(images[0], (side, side))
    np.testing.assert_array_equal(panel_at(0, 0), picture)
    assert (panel_at(1, 0)[:, : side // 2] == 128).all()
    for column in range(1, 5):
        target, prediction = panel_at(0, column), panel_at(1, column)
        np.testing.assert_array_equal(prediction[:, : side // 2], target[:, : side // 2])
        np.testing.assert_array_equal(prediction[:, side // 2 :], picture[:, side // 2 :])
        if kind == "pixels":
            assert np.abs(panel_at(2, column).astype(int) - picture).max() <= 1
