import jax
import jax.numpy as jnp
import numpy as np
import pytest

from localmim_jax.errors import ConfigError
from localmim_jax.ops.erasing import ErasingConfig, random_erasing

pytestmark = pytest.mark.usefixtures("strict_dtypes")

N, H, W = 2000, 28, 28


def erase(images, config):
    return jax.jit(lambda key: random_erasing(key, images, config))(jax.random.key(0))


@pytest.fixture(scope="module")
def erased():
    out = erase(jnp.full((N, H, W, 2), 50.0), ErasingConfig())
    return np.asarray(out), np.asarray(out[..., 0] != 50.0)


def test_a_quarter_of_the_images_loses_one_box_of_noise(erased):
    out, holes = erased
    touched = holes.any(axis=(1, 2))
    assert touched.mean() == pytest.approx(0.25, abs=0.03)
    for hole in holes[touched]:
        np.testing.assert_array_equal(hole, np.outer(hole.any(axis=1), hole.any(axis=0)))
    noise = out[holes]
    assert noise.mean() == pytest.approx(0.0, abs=0.02)
    assert noise.std() == pytest.approx(1.0, abs=0.02)
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.05  # every channel has its own noise
    assert (out[~holes] == 50.0).all()


def test_the_size_and_shape_of_the_boxes(erased):
    _, holes = erased
    holes = holes[holes.any(axis=(1, 2))]
    heights, widths = holes.any(axis=2).sum(axis=1), holes.any(axis=1).sum(axis=1)
    area, aspect = heights * widths / (H * W), heights / widths
    assert area.min() > 0.01
    assert area.max() < 0.36
    assert np.mean(area) == pytest.approx((0.02 + 1 / 3) / 2, abs=0.02)
    assert np.median(np.log(aspect)) == pytest.approx(0.0, abs=0.15)
    assert 0.25 < aspect.min() < 0.4
    assert 2.5 < aspect.max() < 4.0
    assert (heights < H).all()
    assert (widths < W).all()
    corners = [holes[:, 0, 0].any(), holes[:, -1, -1].any(), holes[:, 0, -1].any()]
    assert all(corners)


def test_aspect_is_height_over_width_on_images_of_any_shape():
    config = ErasingConfig(probability=1.0, area=(0.1, 0.1), aspect=(2.0, 2.0))
    hole = np.asarray(erase(jnp.full((3, 24, 48, 1), 50.0), config)[..., 0] != 50.0)
    np.testing.assert_array_equal(hole.any(axis=2).sum(axis=1), 15)
    np.testing.assert_array_equal(hole.any(axis=1).sum(axis=1), 8)


def test_boxes_that_never_fit_leave_the_image_alone():
    images = jnp.ones((4, 8, 8, 3))
    config = ErasingConfig(probability=1.0, area=(1.0, 1.0), aspect=(1.0, 1.0))
    np.testing.assert_array_equal(erase(images, config), images)


def test_it_can_be_off():
    images = jnp.ones((4, 8, 8, 3))
    assert random_erasing(jax.random.key(0), images, ErasingConfig(probability=0.0)) is images


@pytest.mark.parametrize("changes", [{"probability": 1.5}, {"area": (0.5, 0.1)}, {"aspect": (0.0, 1.0)}])
def test_impossible_settings_are_refused(changes):
    with pytest.raises(ConfigError, match="erasing"):
        ErasingConfig(**changes)
