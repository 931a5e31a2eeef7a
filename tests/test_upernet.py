"""The segmentation model against the release's numbers, on tiny models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from localmim_jax import params as trees
from localmim_jax.convert import names, swin_names, vit_names
from localmim_jax.segmentation.upernet import Segmenter
from tests.defaults import segmenter_config, swin_config, vit_config

VIT = vit_config(image_size=(64, 64), width=24, num_heads=3, relative_position_bias=True, layer_scale=True)
SWIN = swin_config(image_size=(96, 96), width=8, depths=(2, 2, 2, 2), num_heads=(1, 2, 2, 4))
ORACLES = {"upernet_vit": (VIT, vit_names.SEGMENTER), "upernet_swin": (SWIN, swin_names.SEGMENTER)}


def oracle(goldens, name):
    """(file, graph definition, parameters, statistics) of the release's tiny model."""
    encoder, rules = ORACLES[name]
    file = dict(np.load(goldens / f"{name}.npz"))
    source = {key[len("param/") :]: value for key, value in file.items() if key.startswith("param/")}
    config = segmenter_config(encoder.for_dense(), num_classes=5, channels=16, auxiliary_channels=8)
    graphdef, params, statistics = trees.split(lambda rngs: Segmenter(config, rngs=rngs))
    flat = trees.flatten(params) | trees.flatten(statistics)
    arrays = names.import_arrays(source, flat, rules)
    assert {path: array.shape for path, array in arrays.items()} == {path: leaf.shape for path, leaf in flat.items()}
    assert len(arrays) == len(source), "every array of the release is used"
    arrays = {path: jnp.asarray(array) for path, array in arrays.items()}
    return (
        file,
        graphdef,
        *(trees.unflatten({path: arrays[path] for path in trees.flatten(tree)}) for tree in (params, statistics)),
    )


@pytest.mark.parametrize("name", ORACLES)
def test_features_and_logits_are_the_releases(goldens, name):
    file, graphdef, params, statistics = oracle(goldens, name)

    def run(images):
        model = trees.merge(graphdef, params, statistics)
        return model.feature_maps(images), model(images)

    maps, (logits, auxiliary) = jax.jit(run)(jnp.asarray(file["images"]))
    for i, found in enumerate(maps):
        np.testing.assert_allclose(found, file[f"feature/{i}"].transpose(0, 2, 3, 1), atol=1e-5, rtol=1e-5)
    for found, key in ((logits, "logits"), (auxiliary, "aux_logits")):
        expected = file[key].transpose(0, 2, 3, 1)
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(found, expected, atol=2e-5, rtol=2e-5)
