import jax
import jax.numpy as jnp
import numpy as np
import pytest

from localmim_jax.ops.resize import resize_bilinear
from localmim_jax.segmentation.pixel_loss import ROWS, pixel_cross_entropy

SHAPES = [(ROWS, 16), (ROWS + 9, 20)]  # one strip, and a second that is not full


@pytest.mark.parametrize("size", SHAPES)
def test_equal_to_a_loop_over_labeled_pixels(size, strict_dtypes):
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(2, 5, 6, 4)).astype(np.float32) * 3)
    labels = rng.integers(0, 5, (2, *size)).astype(np.uint8)
    labels[labels == 4] = 255
    scores = np.asarray(resize_bilinear(logits, size), np.float64)
    losses, hits = [], []
    for place in zip(*np.nonzero(labels != 255), strict=True):
        own = scores[place]
        losses.append(np.log(np.exp(own).sum()) - own[labels[place]])
        hits.append(own.argmax() == labels[place])
    loss, accuracy = jax.jit(pixel_cross_entropy)(logits, jnp.asarray(labels))
    assert float(loss) == pytest.approx(np.mean(losses), rel=1e-5)
    assert float(accuracy) == pytest.approx(np.mean(hits), abs=1e-6)


def test_gradient_is_that_of_the_plain_form_and_nothing_labeled_gives_zero():
    rng = np.random.default_rng(1)
    logits = jnp.asarray(rng.normal(size=(1, 4, 4, 3)).astype(np.float32))
    labels = jnp.asarray(rng.integers(0, 4, (1, ROWS + 3, 12)))  # 3 is no class of these

    def plain(logits):
        scores = jax.nn.log_softmax(resize_bilinear(logits, labels.shape[1:]))
        own = jnp.take_along_axis(scores, jnp.minimum(labels, 2)[..., None], axis=-1)[..., 0]
        return -jnp.sum(own * (labels < 3)) / jnp.sum(labels < 3)

    found, expected = (jax.jit(jax.grad(f))(logits) for f in (lambda x: pixel_cross_entropy(x, labels)[0], plain))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    (loss, accuracy), gradient = jax.value_and_grad(
        lambda x: pixel_cross_entropy(x, jnp.full_like(labels, 255)), has_aux=True
    )(logits)
    assert (float(loss), float(accuracy)) == (0.0, 0.0)
    assert not np.asarray(gradient).any()
