"""A glyph lies along the edge it stands for, a patch lands where it came from, and a grid is what it says."""

import jax.numpy as jnp
import numpy as np
import pytest
from skimage import data

from localmim_jax.evals import drawing
from localmim_jax.method.targets import make_targets
from tests.defaults import target_config


def edge_image(angle: float, size: int = 32, channels: int = 3) -> np.ndarray:
    """A straight, soft edge through the middle that runs at `angle` (radians, counter-clockwise from the x axis)."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    distance = x * np.sin(angle) + y * np.cos(angle)  # y points down
    return np.repeat(np.tanh(distance / 3)[..., None], channels, axis=-1).astype(np.float32)


def hog(image: np.ndarray, cell: int, bins: int) -> np.ndarray:
    (target,) = make_targets(jnp.asarray(image[None]), target_config("hog", (cell,), bins))
    return np.asarray(target[0]).reshape(image.shape[0] // cell, image.shape[1] // cell, -1)


def direction(picture: np.ndarray) -> float:
    """Angle of the main axis of the brightness in a picture, in 0..pi, counter-clockwise from the x axis."""
    weight = picture.mean(axis=-1).astype(float)
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    x, y = x - np.average(x, weights=weight), np.average(y, weights=weight) - y
    xx, yy, xy = (np.average(product, weights=weight) for product in (x * x, y * y, x * y))
    return (0.5 * np.arctan2(2 * xy, xx - yy)) % np.pi


@pytest.mark.parametrize("bins", [9, 18])
@pytest.mark.parametrize("degrees", [0, 20, 45, 80, 90, 110, 135, 160])
def test_glyph_lies_along_the_edge(degrees, bins):
    angle = np.deg2rad(degrees)
    picture = drawing.hog_picture(hog(edge_image(angle), cell=32, bins=bins), bins, cell=33)
    error = (direction(picture) - angle + np.pi / 2) % np.pi - np.pi / 2
    assert abs(error) <= np.pi / bins


def test_glyphs_stand_where_their_cells_are():
    descriptors = np.zeros((2, 3, 4), np.float32)
    descriptors[1, 2, 0] = 1.0
    descriptors[0, 1, 3] = 0.5
    picture = drawing.hog_picture(descriptors, bins=4, cell=8)
    assert picture.shape == (16, 24, 3)
    assert picture.dtype == np.uint8
    assert picture[8:, 16:].max() > 200
    assert 130 < picture[:8, 8:16].max() <= 181  # the square root of a half
    picture[8:, 16:] = picture[:8, 8:16] = 0
    assert picture.max() == 0


def test_three_channels_are_colored_and_others_are_white():
    descriptors = np.zeros((1, 1, 3 * 6), np.float32)
    descriptors[..., 6:12] = 1.0
    assert [drawing.hog_picture(descriptors, 6, 12)[..., c].max() > 200 for c in range(3)] == [False, True, False]
    gray = drawing.hog_picture(descriptors[..., :12], 6, 12)
    assert (gray == gray[..., :1]).all()
    assert 100 < gray.max() < 160


def test_values_out_of_range_do_not_wrap():
    descriptors = np.array([[[7.0, -3.0, np.nan]]], np.float32)
    expected = drawing.hog_picture(np.array([[[1.0, 0.0, 0.0]]], np.float32), 3, 13)
    np.testing.assert_array_equal(drawing.hog_picture(descriptors, 3, 13), expected)
    assert expected.max() == 255


def test_pixel_patches_come_back_in_place():
    image = data.astronaut()[100:148, 200:264].astype(np.float32) / 255
    (target,) = make_targets(jnp.asarray(image[None]), target_config("pixels", (8,)))
    picture = drawing.pixel_picture(np.asarray(target[0]).reshape(6, 8, -1), channels=3)
    assert picture.shape == (48, 64, 3)
    for row, column in [(0, 0), (2, 5), (5, 7)]:
        place = np.s_[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        patch = image[place]
        expected = 0.5 + (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + 1e-6) / 6
        np.testing.assert_allclose(picture[place], np.clip(expected, 0, 1) * 255, atol=0.51)


def test_gray_pixels_and_broken_ones():
    patches = np.zeros((2, 1, 4), np.float32)
    patches[0, 0] = [np.nan, 9, -9, 3]
    picture = drawing.pixel_picture(patches, channels=1)
    assert picture.shape == (4, 2, 3)
    np.testing.assert_array_equal(picture[..., 0], [[128, 255], [0, 255], [128, 128], [128, 128]])


def test_masked_patches_are_gray_and_visible_ones_show_the_image():
    picture, image = np.full((4, 6, 3), 200, np.uint8), np.full((2, 3, 3), 70, np.uint8)
    mask = np.array([[1, 0, 0], [0, 0, 1]])
    masked, mixed = drawing.masked_picture(picture, mask), drawing.show_visible(picture, image, mask)
    np.testing.assert_array_equal(masked[..., 0], 200 - 72 * mask.repeat(2, 0).repeat(2, 1))
    np.testing.assert_array_equal(mixed[..., 0], 70 + 130 * mask.repeat(2, 0).repeat(2, 1))
    assert masked.dtype == mixed.dtype == np.uint8


def test_resize_keeps_squares_and_averages():
    picture = np.array([[[0, 0, 0], [200, 100, 50]]], np.uint8)
    np.testing.assert_array_equal(drawing.resize(picture, (2, 4))[..., 0], [[0, 0, 200, 200]] * 2)
    np.testing.assert_array_equal(drawing.resize(picture, (1, 1))[0, 0], [100, 50, 25])


def test_grid_has_every_panel_and_its_heading():
    colors = [[(250, 0, 0), (0, 250, 0)], [(0, 0, 250), (9, 9, 9)], [(1, 2, 3), (90, 80, 70)]]
    rows = [[np.full((5, 7, 3), color, np.uint8) for color in row] for row in colors]
    grid = drawing.labeled_grid(rows, ["left", "right\nside"], panel=(40, 60))
    assert grid.dtype == np.uint8
    for row in colors:
        for color in row:
            assert (grid == np.uint8(color)).all(-1).sum() == 40 * 60
    top = np.argwhere((grid == (250, 0, 0)).all(-1))[0][0]
    ink = (grid[:top] < 100).all(-1)
    assert ink[:, :67].any()
    assert ink[:, 67:].sum() > ink[:, :67].sum()
    assert (grid[top - 1] == 255).all()


def test_ragged_grid_is_refused():
    with pytest.raises(ValueError, match=r"rows of \[1\] pictures under 2 headings"):
        drawing.labeled_grid([[np.zeros((2, 2, 3), np.uint8)]], ["a", "b"], panel=(4, 4))


def test_grid_with_sides_and_a_caption():
    rows = [[np.full((4, 4, 3), color, np.uint8)] for color in ((250, 0, 0), (0, 250, 0))]
    plain = drawing.labeled_grid(rows, ["x"], panel=(80, 80))
    grid = drawing.labeled_grid(rows, ["x"], (80, 80), ["above", "below"], "a caption\nof two lines")
    for color in ((250, 0, 0), (0, 250, 0)):
        assert (grid == np.uint8(color)).all(-1).sum() == 80 * 80
    wider = grid.shape[1] - plain.shape[1]
    ink = (grid < 100).all(-1)
    assert ink[: plain.shape[0] // 2, :wider].any()
    assert ink[plain.shape[0] // 2 : plain.shape[0], :wider].any()
    assert ink[plain.shape[0] :].any()
    assert not ink[plain.shape[0] // 2 : plain.shape[0], wider + drawing.GAP : -drawing.GAP].any()
