"""A tiny detector and a batch for it, for the tests of its heads."""

import jax
import jax.numpy as jnp
import numpy as np

from localmim_jax.detection.mask_rcnn import MaskRCNN
from localmim_jax.params import initialize, split
from tests.defaults import mask_rcnn_config, swin_config

ENCODER = swin_config(image_size=(64, 96), width=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2), drop_path=0.1)
CONFIG = mask_rcnn_config(
    encoder=ENCODER,
    num_classes=3,
    channels=8,
    box_head_width=16,
    mask_convs=1,
    anchor_scale=4.0,
    rpn_samples=32,
    roi_samples=16,
    pre_nms_top_n=40,
    pre_nms_top_n_test=40,
    post_nms_top_n=30,
    detections=10,
)


def make_model(rngs):
    return MaskRCNN(CONFIG, rngs=rngs)


def tiny_model(seed=0):
    graphdef, *_ = split(make_model)
    params, model_state = jax.jit(lambda key: initialize(make_model, key))(jax.random.key(seed))
    return graphdef, params, model_state


def batch(images=2, size=(64, 96), objects=3, padding=2, seed=0):
    """Normalized noise with boxes; the second image is smaller than its padded frame."""
    rng = np.random.default_rng(seed)
    h, w = size
    sizes = np.tile(np.array([h, w], np.float32), (images, 1))
    sizes[1:, 1] -= 24
    corner = rng.uniform(0, 0.5, (images, objects + padding, 2)) * sizes[:, None, ::-1]
    side = rng.uniform(0.2, 0.45, corner.shape) * sizes[:, None, ::-1]
    boxes = np.concatenate([corner, corner + side], axis=-1).astype(np.float32)
    labels = rng.integers(0, 3, (images, objects + padding)).astype(np.int32)
    labels[:, objects:] = -1
    y, x = np.mgrid[:16, :16] - 7.5
    disc = (y**2 + x**2 < 60).astype(np.uint8)
    return {
        "image": jnp.asarray(rng.normal(size=(images, h, w, 3)).astype(np.float32)),
        "size": jnp.asarray(sizes),
        "boxes": jnp.asarray(boxes * (labels >= 0)[..., None]),
        "labels": jnp.asarray(labels),
        "masks": jnp.asarray(np.broadcast_to(disc, (*labels.shape, 16, 16)) * (labels >= 0)[..., None, None]),
    }
