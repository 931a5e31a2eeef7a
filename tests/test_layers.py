"""Every parameter's learning-rate scale and weight decay in fine-tuning, against the release's own groups."""

import json

import pytest

from localmim_jax import params as trees
from localmim_jax.convert import names, swin_names, vit_names
from localmim_jax.engine.optim import make_optimizer
from localmim_jax.errors import ConfigError
from localmim_jax.models import swin, vit
from localmim_jax.models.classifier import Classifier
from localmim_jax.tasks.layers import last_blocks
from tests.defaults import classifier_config, optimizer_settings, swin_config, vit_config

RELEASE = {
    "vit_base_decay0.65": ("vit_b", 0.65),
    "vit_base_decay0.75": ("vit_b", 0.75),
    "vit_large_decay0.75": ("vit_l", 0.75),
    "swin_base_decay0.9": ("swin_b", 0.9),
    "swin_large_decay0.8": ("swin_l", 0.8),
}


def parameters(variant):
    """(encoder config, paths of the classifier) at full size; nothing is allocated."""
    if variant.startswith("vit"):
        encoder = vit_config(position="learned", **vit.VARIANTS[variant])
    else:
        encoder = swin_config(window=14 if variant == "swin_l" else 7, **swin.VARIANTS[variant])
    config = classifier_config(encoder=encoder)
    return encoder, trees.flatten(trees.split(lambda rngs: Classifier(config, rngs=rngs))[1])


@pytest.mark.parametrize("name", RELEASE)
def test_every_parameter_has_the_releases_scale_and_decay(goldens, name):
    expected = json.loads((goldens / "finetune_param_groups.json").read_text())[name]
    variant, decay = RELEASE[name]
    encoder, paths = parameters(variant)
    rules = vit_names.CLASSIFIER if variant.startswith("vit") else (*swin_names.encoder(), *swin_names.HEAD)
    settings = optimizer_settings(weight_decay=0.05, layer_decay=decay)
    optimizer = make_optimizer(settings, paths, encoder.weight_decay["finetune"], encoder.layer_of)
    found = {
        names.release_name(path, rules)[0]: (
            optimizer.lr_scale[path],
            settings.weight_decay * optimizer.decayed[path],
        )
        for path in paths
    }
    assert found.keys() == expected.keys()
    for parameter, values in expected.items():
        assert found[parameter] == pytest.approx(tuple(values), rel=1e-6, abs=1e-10), parameter


def test_training_only_the_last_blocks():
    encoder, paths = parameters("vit_b")
    trained = {path for path in paths if last_blocks(encoder, 2)(path)}
    assert {path.split("/")[0] for path in trained} == {"encoder", "norm", "head"}
    assert {path.split("/")[2] for path in trained if path.startswith("encoder")} == {"10", "11"}
    assert all("encoder" not in path for path in paths if last_blocks(encoder, 0)(path))
    assert all(map(last_blocks(encoder, None), paths))
    everything_but = {path for path in paths if not last_blocks(encoder, 12)(path)}
    assert {path.split("/")[1] for path in everything_but} == {"patch_embed", "class_token", "position_embedding"}
    encoder, paths = parameters("swin_b")
    trained = {path for path in paths if last_blocks(encoder, 3)(path)}
    assert {"/".join(path.split("/")[1:5]) for path in trained if path.startswith("encoder")} == {
        "stages/2/blocks/17",
        "stages/2/merging/norm",
        "stages/2/merging/reduction",
        "stages/3/blocks/0",
        "stages/3/blocks/1",
    }
    with pytest.raises(ConfigError, match=r"from 0 \(the head alone\) to 12"):
        last_blocks(vit_config(), 13)
