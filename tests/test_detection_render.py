import numpy as np

from localmim_jax.detection import render


def found(**changes):
    return {
        "boxes": np.array([[4.0, 4.0, 20.0, 16.0], [24.0, 4.0, 36.0, 16.0]], np.float32),
        "scores": np.array([0.9, 0.3], np.float32),
        "labels": np.array([0, 1]),
        "masks": np.ones((2, 28, 28), np.float32),
    } | changes


def test_only_sure_detections_are_drawn_where_they_are():
    image = np.zeros((40, 60, 3), np.uint8)
    picture = render.draw(image, found(), ("cat", "dog"), long_side=240)
    assert picture.shape == (160, 240, 3)
    assert picture[40:60, 30:70].any(), "inside the first box"
    assert not picture[:, 92:].any(), "the second is below the minimum score"
    assert not image.any(), "the input stays"
    assert render.draw(image, found(), ("cat", "dog"), min_score=0.2)[:, 25:].any()


def test_without_detections_the_image_stays():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    nothing = {key: value[:0] for key, value in found().items()}
    np.testing.assert_array_equal(render.draw(image, nothing, ()), image)


def test_neighboring_labels_have_different_colors_and_a_grid_holds_any_sizes():
    colors = {render.color(label) for label in range(80)}
    assert len(colors) == 80
    grid = render.grid([np.zeros((10, 20, 3), np.uint8), np.zeros((30, 5, 3), np.uint8)] * 3)
    assert grid.shape == (2 * 36 + 6, 4 * 26 + 6, 3)
    assert (grid == 0).all(axis=-1).sum() == 3 * (200 + 150)
