import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localmim_jax.errors import ConfigError
from localmim_jax.method.masking import check_num_masks, mask_from_noise, num_visible, random_mask, to_grid

pytestmark = pytest.mark.usefixtures("strict_dtypes")


def test_the_papers_counts():
    assert num_visible((14, 14), 0.75) == 49
    assert num_visible((7, 7), 0.75) == 12
    assert num_visible((7, 5), 0.6) == 14


@pytest.mark.parametrize("ratio", [0.0, 1.0, 0.999])
def test_a_mask_needs_something_seen_and_something_hidden(ratio):
    with pytest.raises(ConfigError, match="choose a ratio"):
        num_visible((4, 4), ratio)


@settings(deadline=None, max_examples=20)
@given(rows=st.integers(1, 5), columns=st.integers(2, 5), seed=st.integers(0, 1000), data=st.data())
def test_keep_restore_and_masked_tell_the_same_story(rows, columns, seed, data):
    n = rows * columns
    keep = data.draw(st.integers(1, n - 1))
    noise = np.random.default_rng(seed).random((3, n), dtype=np.float32)
    mask = mask_from_noise(jnp.asarray(noise), (rows, columns), keep)
    assert mask.grid == (rows, columns)
    for i in range(3):
        visible = np.flatnonzero(np.asarray(mask.masked[i]).reshape(-1) == 0)
        np.testing.assert_array_equal(np.sort(mask.keep[i]), visible)
        np.testing.assert_array_equal(np.asarray(mask.keep[i]), np.argsort(noise[i])[:keep])
        np.testing.assert_array_equal(np.asarray(mask.restore[i])[np.asarray(mask.keep[i])], np.arange(keep))


def test_masks_differ_between_images_and_keys_but_not_between_calls():
    first = random_mask(jax.random.key(0), 4, (6, 6), 0.75)
    again = random_mask(jax.random.key(0), 4, (6, 6), 0.75)
    other = random_mask(jax.random.key(1), 4, (6, 6), 0.75)
    np.testing.assert_array_equal(first.keep, again.keep)
    assert not np.array_equal(first.masked, other.masked)
    assert len({row.tobytes() for row in np.asarray(first.masked)}) == 4


def test_every_unit_is_masked_equally_often():
    mask = random_mask(jax.random.key(3), 4000, (4, 4), 0.75)
    np.testing.assert_allclose(mask.masked.mean(axis=0), 0.75, atol=0.03)


def test_at_other_scales():
    noise = jnp.asarray([[0.1, 0.9, 0.8, 0.2, 0.7, 0.6, 0.3, 0.4]], jnp.float32)
    mask = mask_from_noise(noise, (2, 4), 3)  # keeps 0, 3, 6
    np.testing.assert_array_equal(mask.resized_to((2, 4))[0], [0, 1, 1, 0, 1, 1, 0, 1])
    np.testing.assert_array_equal(mask.resized_to((4, 8))[0].reshape(4, 8)[:2, ::2], [[0, 1, 1, 0], [0, 1, 1, 0]])
    np.testing.assert_array_equal(mask.resized_to((1, 2))[0], [0.75, 0.5])
    np.testing.assert_array_equal(mask.resized_to((1, 8))[0], [0.5, 0.5, 1, 1, 0.5, 0.5, 0.5, 0.5])
    with pytest.raises(ConfigError, match="neither divides"):
        mask.resized_to((3, 4))


@pytest.mark.parametrize("side", [1, 2, 4])
def test_to_grid_puts_every_visible_token_back(side):
    rows, columns, d = 2, 3, 5
    rng = np.random.default_rng(side)
    mask = mask_from_noise(jnp.asarray(rng.random((2, 6), np.float32)), (rows, columns), 2)
    picture = rng.standard_normal((2, rows * side, columns * side, d)).astype(np.float32)
    fill = np.arange(d, dtype=np.float32)
    units = picture.reshape(2, rows, side, columns, side, d).transpose(0, 1, 3, 2, 4, 5).reshape(2, 6, side * side, d)
    tokens = np.take_along_axis(units, np.asarray(mask.keep)[:, :, None, None], axis=1).reshape(2, -1, d)

    restored = to_grid(jnp.asarray(tokens), mask, jnp.asarray(fill))

    hidden = np.repeat(np.repeat(np.asarray(mask.masked), side, axis=1), side, axis=2)[..., None]
    np.testing.assert_array_equal(restored, np.where(hidden == 1, fill, picture))


def test_gradients_of_to_grid_reach_tokens_and_fill_without_a_scatter():
    mask = random_mask(jax.random.key(0), 2, (2, 3), 0.5)
    weights = np.random.default_rng(0).standard_normal((2, 4, 6, 5)).astype(np.float32)
    tokens, fill = jnp.ones((2, 12, 5)), jnp.ones(5)
    gradients = jax.grad(lambda tokens, fill: (to_grid(tokens, mask, fill) * weights).sum(), argnums=(0, 1))
    of_tokens, of_fill = gradients(tokens, fill)

    units = weights.reshape(2, 2, 2, 3, 2, 5).transpose(0, 1, 3, 2, 4, 5).reshape(2, 6, 4, 5)
    visible = np.take_along_axis(units, np.asarray(mask.keep)[:, :, None, None], axis=1)
    np.testing.assert_array_equal(of_tokens, visible.reshape(2, 12, 5))
    np.testing.assert_allclose(of_fill, weights.sum((0, 1, 2)) - visible.sum((0, 1, 2)), rtol=1e-5, atol=1e-5)
    assert "scatter" not in str(jax.make_jaxpr(gradients)(tokens, fill))


def test_a_mask_depends_on_its_key_and_number_alone():
    few = random_mask(jax.random.key(0), 2, (6, 6), 0.75)
    many = random_mask(jax.random.key(0), 8, (6, 6), 0.75)
    np.testing.assert_array_equal(few.keep, many.keep[:2])


def test_shared_masks_cover_contiguous_slices():
    mask = random_mask(jax.random.key(0), 2, (6, 6), 0.75)
    spread = mask.per_image(6)
    for array, shared in zip(jax.tree.leaves(spread), jax.tree.leaves(mask), strict=True):
        assert array.shape[0] == 6
        for image in range(6):
            np.testing.assert_array_equal(array[image], shared[image // 3])
    assert mask.per_image(2) is mask


@pytest.mark.parametrize(
    ("batch", "shards", "legal"),
    [(2048, 8, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048]), (12, 6, [1, 2, 3, 6, 12]), (5, 1, [1, 5])],
)
def test_which_numbers_of_masks_fit(batch, shards, legal):
    for num_masks in range(batch + 2):
        if num_masks in legal:
            check_num_masks(num_masks, batch, shards)
        else:
            with pytest.raises(ConfigError, match=f"{legal[0]}.*{legal[-1]} masks"):
                check_num_masks(num_masks, batch, shards)
