"""Every parameter's learning-rate scale and weight decay in fine-tuning, against the release's own groups."""

import json

import pytest

from localmim_jax import params as trees
from localmim_jax.backbones.vit import VARIANTS, ViTConfig
from localmim_jax.convert import names
from localmim_jax.engine.optim import make_optimizer
from localmim_jax.engine.settings import OptimizerSettings
from localmim_jax.errors import ConfigError
from localmim_jax.heads.classifier import Classifier, ClassifierConfig
from localmim_jax.tasks.decay import FINETUNE
from localmim_jax.tasks.layers import last_blocks, layer_of

RELEASE = {
    "vit_base_decay0.65": ("vit_b", 0.65),
    "vit_base_decay0.75": ("vit_b", 0.75),
    "vit_large_decay0.75": ("vit_l", 0.75),
}


def parameters(variant):
    """(encoder config, paths of the classifier) at full size; nothing is allocated."""
    encoder = ViTConfig(position="learned", **VARIANTS[variant])
    config = ClassifierConfig(encoder=encoder)
    return encoder, trees.flatten(trees.split(lambda rngs: Classifier(config, rngs=rngs))[1])


@pytest.mark.parametrize("name", RELEASE)
def test_every_parameter_has_the_releases_scale_and_decay(goldens, name):
    expected = json.loads((goldens / "finetune_param_groups.json").read_text())[name]
    variant, decay = RELEASE[name]
    encoder, paths = parameters(variant)
    settings = OptimizerSettings(weight_decay=0.05, layer_decay=decay)
    optimizer = make_optimizer(settings, paths, FINETUNE, layer_of(encoder))
    found = {
        names.release_name(path, names.VIT_CLASSIFIER)[0]: (
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
    with pytest.raises(ConfigError, match=r"from 0 \(the head alone\) to 12"):
        last_blocks(encoder, 13)
