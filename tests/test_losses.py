import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from localmim_jax.method.losses import masked_mean_squared_error, multi_scale_loss

pytestmark = pytest.mark.usefixtures("strict_dtypes")


def test_weighted_over_the_whole_batch():
    prediction = jnp.asarray([[[1.0, 3.0], [0.0, 0.0]], [[2.0, 2.0], [1.0, 1.0]]])
    target = jnp.zeros((2, 2, 2))
    weight = jnp.asarray([[1.0, 0.0], [0.5, 1.0]])
    # cells cost 5, 0, 4, 1: (5 * 1 + 4 * 0.5 + 1 * 1) / 2.5
    assert masked_mean_squared_error(prediction, target, weight) == pytest.approx(8 / 2.5)


def test_nothing_masked_is_zero_not_nan():
    assert masked_mean_squared_error(jnp.ones((1, 2, 3)), jnp.zeros((1, 2, 3)), jnp.zeros((1, 2))) == 0


def test_bfloat16_predictions_are_compared_in_float32():
    prediction = jnp.full((1, 1, 4), 1.0, jnp.bfloat16)
    loss = masked_mean_squared_error(prediction, jnp.full((1, 1, 4), 1.001, jnp.float32), jnp.ones((1, 1)))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, 1e-6, rtol=1e-3)


def test_scales_weigh_the_same():
    predictions = [jnp.ones((1, 4, 2)), 3 * jnp.ones((1, 1, 5))]
    targets = [jnp.zeros((1, 4, 2)), jnp.zeros((1, 1, 5))]
    total, losses = multi_scale_loss(predictions, targets, [jnp.ones((1, 4)), jnp.ones((1, 1))])
    assert [float(loss) for loss in losses] == [1.0, 9.0]
    assert total == 10.0


def test_shapes_that_disagree_are_refused_under_pytest():
    with pytest.raises(TypeCheckError, match="weight"):
        masked_mean_squared_error(jnp.ones((1, 2, 3)), jnp.zeros((1, 2, 3)), jnp.zeros((1, 3)))
