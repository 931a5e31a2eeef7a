"""Color jitter and grayscale against plain arithmetic on a photograph."""

import colorsys

import numpy as np
import pytest
from PIL import Image
from skimage import data as photos

from localmim_jax.data.color import jitter, rotate_hue, to_gray

PHOTO = Image.fromarray(photos.coffee()[100:160, 200:280])
PIXELS = np.asarray(PHOTO).astype(np.float64)
LUMA = PIXELS @ [0.299, 0.587, 0.114]


class Draws:
    """No change of the order, and the lowest or highest of every range."""

    def __init__(self, highest):
        self.highest = highest

    def permutation(self, n):
        return range(n)

    def uniform(self, low, high):
        return high if self.highest else low


@pytest.mark.parametrize(("highest", "factor"), [(True, 1.4), (False, 0.6)])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_each_strength_alone(index, highest, factor):
    strengths = tuple(0.4 if i == index else 0.0 for i in range(4))
    found = np.asarray(jitter(PHOTO, strengths, Draws(highest))).astype(np.float64)
    base = (np.zeros_like(PIXELS), np.full_like(PIXELS, round(LUMA.mean())), LUMA[..., None])[index]
    np.testing.assert_allclose(found, (base + factor * (PIXELS - base)).clip(0, 255), atol=1.5)


def test_a_factor_is_never_negative():
    assert np.asarray(jitter(PHOTO, (3.0, 0.0, 0.0, 0.0), Draws(False))).max() == 0


def test_hue_is_rotated_and_nothing_else():
    found = np.asarray(rotate_hue(PHOTO, 1 / 3)).reshape(-1, 3)[::37]
    for before, after in zip(np.asarray(PHOTO).reshape(-1, 3)[::37], found, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before / 255)
        expected = colorsys.hsv_to_rgb((hue + 1 / 3) % 1, saturation, value)
        np.testing.assert_allclose(after / 255, expected, atol=0.03)
    assert np.abs(np.asarray(rotate_hue(PHOTO, 0.0)).astype(int) - np.asarray(PHOTO)).max() <= 5  # 8 bits of hue


def test_hue_draws_both_ways():
    ahead, back = (np.asarray(jitter(PHOTO, (0, 0, 0, 0.1), Draws(highest))) for highest in (True, False))
    np.testing.assert_array_equal(ahead, np.asarray(rotate_hue(PHOTO, 0.1)))
    np.testing.assert_array_equal(back, np.asarray(rotate_hue(PHOTO, -0.1)))


def test_the_order_is_drawn():
    found = {jitter(PHOTO, (0.4, 0.4, 0, 0), np.random.default_rng(seed)).tobytes() for seed in range(4)}
    assert len(found) == 4


def test_gray_images_keep_their_mode():
    assert jitter(PHOTO.convert("L"), (0.4, 0.4, 0.0, 0.0), np.random.default_rng(0)).mode == "L"
    gray = np.asarray(to_gray(PHOTO))
    np.testing.assert_allclose(gray, np.repeat(LUMA[..., None], 3, -1), atol=1)
