import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from localmim_jax import params as trees
from localmim_jax.errors import ConfigError
from localmim_jax.models.pyramid import PyramidBackbone
from tests.defaults import swin_config, vit_config

VIT = vit_config(image_size=(48, 80), width=8, depth=4, num_heads=2)
SWIN = swin_config(width=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1))


@pytest.mark.parametrize(
    ("encoder", "taps", "size", "grids", "widths"),
    [
        (VIT, (1, 2, 3, 4), (48, 80), [(12, 20), (6, 10), (3, 5), (1, 2)], [8, 8, 8, 8]),
        (SWIN, None, (50, 72), [(13, 18), (7, 9), (4, 5), (2, 3)], [8, 16, 32, 64]),
    ],
)
def test_strides_are_4_8_16_32(encoder, taps, size, grids, widths):
    """Also where sizes do not divide: Swin's grids are rounded up, ViT's pooled one down."""

    def maps(images):
        return PyramidBackbone(encoder.for_dense(), taps, rngs=nnx.Rngs(0)).feature_maps(images)

    found = jax.eval_shape(maps, jax.ShapeDtypeStruct((2, *size, 3), np.float32))
    assert [x.shape for x in found] == [(2, *grid, width) for grid, width in zip(grids, widths, strict=True)]


def test_swins_taps_are_read_before_the_merging_and_its_windows_keep_their_size():
    config = SWIN.for_dense()
    assert (config.window_rule, config.tap_after_merging, config.epsilon, config.epsilon2) == ("pad", False, 1e-5, None)
    assert config.windows(3) == (7, 3)
    _, params, _ = trees.split(lambda rngs: PyramidBackbone(config, rngs=rngs))
    assert {path: leaf.shape for path, leaf in trees.flatten(params["pyramid"]).items()} == {
        f"norms/{i}/{leaf}": (8 * 2**i,) for i in range(4) for leaf in ("scale", "bias")
    }


@pytest.mark.parametrize(
    ("config", "taps"),
    [
        (VIT, None),  # four blocks have but two of the paper's taps
        (VIT, (1, 2, 3, 5)),
        (dataclasses.replace(SWIN, depths=(1, 1), num_heads=(1, 1), sparse_attention=("plain",) * 2), None),
        (dataclasses.replace(VIT, image_size=(16, 32)), (1, 2, 3, 4)),
    ],
)
def test_layers_that_are_not_there_are_refused(config, taps):
    with pytest.raises(ConfigError, match="feature pyramid"):
        config.pyramid_taps(taps)
