import jax
import jax.numpy as jnp
import numpy as np
import pytest

from localmim_jax.errors import ConfigError
from localmim_jax.ops.mixup import cutmix_box, mix, soft_cross_entropy, soft_targets
from tests.defaults import mix_config

pytestmark = pytest.mark.usefixtures("strict_dtypes")

B, H, W, CLASSES = 4, 12, 20, 5
LABELS = jnp.asarray([0, 3, 1, 4], jnp.int32)
IMAGES = jax.random.normal(jax.random.key(9), (B, H, W, 3))


def draws(config, count=400):
    """(weight of each pixel's own image [count, h, w], weight of the own target [count]) over many keys."""
    ramp = jnp.broadcast_to(jnp.arange(2.0)[:, None, None, None], (2, H, W, 1))  # example 0 is all 0, example 1 all 1
    mixed = jax.vmap(lambda key: mix(key, ramp, jnp.asarray([0, 1], jnp.int32), 2, config))
    images, targets = jax.jit(mixed)(jax.random.split(jax.random.key(0), count))
    return np.asarray(images[:, 1, :, :, 0]), np.asarray(targets[:, 1, 1])


def test_soft_targets_spread_the_smoothing_over_all_classes():
    targets = np.asarray(soft_targets(LABELS, CLASSES, 0.1))
    expected = np.full((B, CLASSES), 0.02)
    expected[np.arange(B), LABELS] = 0.92
    np.testing.assert_allclose(targets, expected, atol=1e-7)


def test_mixup_blends_whole_images_by_one_lambda_a_batch():
    own, share = draws(mix_config(mixup=0.8, cutmix=0.0, label_smoothing=0.0))
    np.testing.assert_allclose(own, np.broadcast_to(share[:, None, None], own.shape), atol=1e-6)
    # Beta(0.8, 0.8): mean 1/2, variance 1 / (4 (2a + 1))
    assert share.mean() == pytest.approx(0.5, abs=0.05)
    assert share.var() == pytest.approx(1 / (4 * 2.6), abs=0.012)


def test_cutmix_pastes_one_box_and_counts_its_pixels():
    own, share = draws(mix_config(mixup=0.0, cutmix=1.0, label_smoothing=0.0))
    assert set(np.unique(own)) == {0.0, 1.0}
    np.testing.assert_allclose(share, own.mean(axis=(1, 2)), atol=1e-6)
    for picture in own[:50]:
        rows, columns = (1 - picture).any(axis=1), (1 - picture).any(axis=0)
        np.testing.assert_array_equal(1 - picture, np.outer(rows, columns))
        assert np.abs(np.diff(np.pad(rows.astype(int), 1))).sum() in (0, 2)


def test_the_two_are_switched_per_batch():
    own, _ = draws(mix_config())
    is_cutmix = np.array([set(np.unique(picture)) <= {0.0, 1.0} for picture in own])
    assert is_cutmix.mean() == pytest.approx(0.5, abs=0.08)


def test_the_partner_is_the_batch_in_reverse():
    images, targets = mix(jax.random.key(3), IMAGES, LABELS, CLASSES, mix_config(cutmix=0.0))
    plain = np.asarray(soft_targets(LABELS, CLASSES, 0.1))
    share = (targets[0, 0] - plain[3, 0]) / (plain[0, 0] - plain[3, 0])
    assert 0.01 < share < 0.99
    np.testing.assert_allclose(targets, plain * share + plain[::-1] * (1 - share), atol=1e-6)
    np.testing.assert_allclose(images, IMAGES * share + IMAGES[::-1] * (1 - share), atol=1e-5)
    np.testing.assert_allclose(targets.sum(axis=1), 1.0, atol=1e-6)


def test_a_box_keeps_the_images_shape_and_is_cut_at_the_borders():
    boxes = jax.jit(jax.vmap(lambda key, blend: cutmix_box(key, blend, H, W)))
    keys = jax.random.split(jax.random.key(1), 300)
    quarter = np.asarray(boxes(keys, jnp.full((300,), 0.75)))
    heights, widths = quarter.any(axis=2).sum(axis=1), quarter.any(axis=1).sum(axis=1)
    assert (heights.max(), widths.max()) == (6, 10)
    assert heights.min() == 3
    assert quarter[:, 0].any()
    assert quarter[:, -1].any()
    assert not np.asarray(boxes(keys, jnp.ones((300,)))).any()


def test_without_mixing_only_the_targets_change():
    images, targets = mix(jax.random.key(0), IMAGES, LABELS, CLASSES, mix_config(mixup=0.0, cutmix=0.0))
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(targets, soft_targets(LABELS, CLASSES, 0.1))


def test_soft_cross_entropy_is_its_definition():
    logits = np.random.default_rng(0).normal(size=(B, CLASSES)).astype(np.float32) * 20
    targets = np.asarray(soft_targets(LABELS, CLASSES, 0.1), np.float64)
    log_sum = np.log(np.exp(logits.astype(np.float64)).sum(axis=1, keepdims=True))
    expected = -(targets * (logits - log_sum)).sum(axis=1).mean()
    found = soft_cross_entropy(jnp.asarray(logits), jnp.asarray(targets, jnp.float32))
    assert float(found) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("changes", [{"mixup": -1.0}, {"cutmix": -0.1}, {"switch_prob": 1.5}, {"label_smoothing": 1.0}])
def test_impossible_settings_are_refused(changes):
    with pytest.raises(ConfigError, match=f"{next(iter(changes))}"):
        mix_config(**changes)
