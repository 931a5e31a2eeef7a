import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from localmim_jax.errors import ConfigError
from localmim_jax.params import flatten, merge
from tests.detector import CONFIG, batch, tiny_model


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def losses(model):
    """(params, batch, key) -> ((loss, metrics), gradients), compiled once."""
    graphdef, _, model_state = model

    def loss(params, given, key):
        return merge(graphdef, params, model_state).losses(given["image"], given, key)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def test_every_parameter_gets_a_gradient_and_the_losses_add_up(model, losses):
    (total, metrics), gradients = losses(model[1], batch(), jax.random.key(0))
    parts = ("rpn_class", "rpn_box", "box_class", "box_box", "mask")
    assert float(total) == pytest.approx(sum(float(metrics[name]) for name in parts), rel=1e-5)
    assert all(float(metrics[name]) > 0 for name in parts)
    assert metrics["count/roi_positives"] >= 1
    still = {path for path, leaf in flatten(gradients).items() if not np.abs(leaf).max() > 0}
    # Drop path may silence a block, and no small box is read from the pyramid's coarse levels.
    assert not {path for path in still if not path.startswith(("encoder/", "fpn/"))}
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_padding_objects_change_nothing_and_real_ones_do(model, losses):
    given, key = batch(), jax.random.key(1)
    (total, _), _ = losses(model[1], given, key)
    unreal = (given["labels"] < 0)[..., None]
    other = {
        **given,
        "boxes": jnp.where(unreal, 33.0, given["boxes"]),
        "masks": jnp.where(unreal[..., None], 1, given["masks"]),
    }
    # The proposals' order may hold the padding's box, which is never drawn.
    assert float(losses(model[1], other, key)[0][0]) == pytest.approx(float(total), rel=1e-5)
    moved = {**given, "boxes": given["boxes"] + jnp.where(unreal, 0.0, 5.0)}
    assert abs(float(losses(model[1], moved, key)[0][0]) - float(total)) > 1e-3


def test_images_without_objects_and_with_empty_boxes_are_trained_through(model, losses):
    given = batch()
    none = {**given, "labels": jnp.full_like(given["labels"], -1)}
    (total, metrics), gradients = losses(model[1], none, jax.random.key(0))
    assert np.isfinite(total)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    assert metrics["count/roi_positives"] == metrics["mask"] == metrics["rpn_box"] == metrics["box_box"] == 0
    empty = {**given, "boxes": given["boxes"].at[:, 0, 2:].set(given["boxes"][:, 0, :2])}
    (total, _), gradients = losses(model[1], empty, jax.random.key(0))
    assert np.isfinite(total)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_detections_lie_in_their_images_best_first(model):
    graphdef, params, model_state = model
    given = batch()
    found = jax.jit(lambda p: merge(graphdef, p, model_state).detect(given["image"], given["size"]))(params)
    assert found["masks"].shape == (2, 10, 28, 28)
    for image, (h, w) in enumerate(np.asarray(given["size"])):
        boxes = np.asarray(found["boxes"][image])[np.asarray(found["valid"][image])]
        assert len(boxes)
        assert (boxes >= 0).all()
        assert (boxes <= [w, h, w, h]).all()
    assert (np.diff(found["scores"], axis=1) <= 0).all()
    assert (found["masks"] >= 0).all()
    assert (found["masks"] <= 1).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_classes": 0}, "num_classes"),
        ({"roi_samples": 2}, "a quarter"),
        ({"score_threshold": 1.0}, r"in \[0, 1\)"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(CONFIG, **change)
