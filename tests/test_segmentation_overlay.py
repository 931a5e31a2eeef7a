import numpy as np

from localmim_jax.segmentation.overlay import colors, comparison, legend, paint, with_legend

NAMES = ("wall", "sky, blue", "tree")


def test_colors_differ_and_none_is_black():
    found = colors(150).astype(int)
    assert len({tuple(color) for color in found}) == 150
    assert found.max(axis=1).min() > 100
    assert np.abs(np.diff(found, axis=0)).sum(axis=1).min() > 60


def test_labels_are_painted_over_the_image():
    image = np.full((2, 3, 3), 100, np.uint8)
    labels = np.array([[0, 1, 2], [255, 2, 0]], np.uint8)
    solid = paint(image, labels, 3, strength=1.0)
    np.testing.assert_array_equal(solid[0], colors(3))
    np.testing.assert_array_equal(solid[1, 0], [0, 0, 0])
    np.testing.assert_array_equal(paint(image, labels, 3, strength=0.0), image)
    half = paint(image, labels, 3, strength=0.5)
    np.testing.assert_allclose(half[0, 1], (colors(3)[1].astype(int) + 100) / 2, atol=1)


def test_a_legend_names_what_is_there():
    image, labels = np.full((40, 220, 3), 100, np.uint8), np.zeros((40, 220), np.uint8)
    labels[:, 200:] = 2
    picture = with_legend(image, labels, NAMES)
    assert picture.shape[1] == 220
    below = picture[40:].reshape(-1, 3)
    present = {tuple(map(int, color)) for color in below}
    assert tuple(map(int, colors(3)[0])) in present
    assert tuple(map(int, colors(3)[2])) in present
    assert tuple(map(int, colors(3)[1])) not in present
    narrow = legend([0, 1, 2], np.ones(3) / 3, NAMES, 90)
    wide = legend([0, 1, 2], np.ones(3) / 3, NAMES, 600)
    assert narrow.shape[0] > wide.shape[0], "names go to further lines where they do not fit"
    assert with_legend(image, labels, NAMES, long_side=440).shape[1] == 440


def test_truth_and_prediction_stand_beside_the_image():
    image = np.full((20, 30, 3), 200, np.uint8)
    truth, found = np.zeros((40, 60), np.uint8), np.full((40, 60), 1, np.uint8)
    sheet = comparison([(image, truth, found)] * 2, NAMES, 60)
    again = comparison([(image, truth, truth)] * 2, NAMES, 60)
    assert sheet.shape[1] == again.shape[1] > 180
    body = min(len(sheet), len(again)) - 60
    assert (sheet[:body, :130] == again[:body, :130]).all()
    assert (sheet[:body, 140:] != again[:body, 140:]).any()
