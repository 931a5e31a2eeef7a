"""Whatever kind of backbone is registered keeps what `models.base` promises of it."""

import jax
import numpy as np
import pytest
from flax import nnx

from localmim_jax import params as trees
from localmim_jax.convert.names import release_name
from localmim_jax.convert.naming import naming_of
from localmim_jax.engine.optim import make_optimizer
from localmim_jax.engine.settings import OptimizerSettings
from localmim_jax.method.localmim import LocalMIMConfig
from localmim_jax.method.targets import TargetConfig
from localmim_jax.models.classifier import ClassifierConfig
from localmim_jax.models.pyramid import PyramidBackbone
from localmim_jax.models.registry import KINDS, VARIANTS
from localmim_jax.tasks.lookup import TASKS

CONFIGS = {name: kind(**sizes) for name, (kind, sizes) in VARIANTS.items()}


@pytest.mark.parametrize("variant", CONFIGS)
def test_a_variant_has_one_kind_and_describes_itself(variant):
    config = CONFIGS[variant]
    assert KINDS[config.family].variants[variant] is VARIANTS[variant][1]
    info = config.describe()
    assert (info.family, info.kind, info.image_size) == (config.family, "encoder", (224, 224))
    assert info.num_heads == config.heads


@pytest.mark.parametrize("family", KINDS)
def test_features_are_as_announced(family):
    config = KINDS[family]()
    taps = config.default_taps

    def features(images):
        return config.make(nnx.Rngs(0))(images, taps=taps)

    for tap, found in zip(
        taps, jax.eval_shape(features, jax.ShapeDtypeStruct((2, 224, 224, 3), np.float32)), strict=True
    ):
        rows, columns = config.feature_grid(tap)
        assert found.shape == (2, config.num_prefix_tokens + rows * columns, config.feature_width(tap))


@pytest.mark.parametrize("family", KINDS)
def test_layers_run_from_the_embedding_to_the_head(family):
    config = KINDS[family]()
    paths = trees.flatten(trees.split(ClassifierConfig(config).make)[1])
    assert {config.layer_of(path) for path in paths} == set(range(config.num_blocks + 2))


@pytest.mark.parametrize("family", KINDS)
def test_one_rule_of_weight_decay_covers_each_parameter_in_every_task(family):
    config = KINDS[family]()
    assert set(config.weight_decay) == set(TASKS) - {"linear_probe"}  # which trains the head alone, by fine-tuning's
    cells = config.default_cells(config.default_taps)
    pretrain = LocalMIMConfig(config, config.default_taps, TargetConfig(cells=cells))
    dense = config.for_dense()
    models = {
        "pretrain": pretrain.make,
        "finetune": ClassifierConfig(config.for_classification()).make,
        "segment": lambda rngs: PyramidBackbone(dense, rngs=rngs),
        "detect": lambda rngs: PyramidBackbone(dense, rngs=rngs),
    }
    for task, make in models.items():
        paths = trees.flatten(trees.split(make)[1])
        make_optimizer(OptimizerSettings(), paths, config.weight_decay[task])  # raises unless exactly one


@pytest.mark.parametrize("family", KINDS)
def test_the_naming_table_covers_the_encoder(family):
    config = KINDS[family]().for_classification()
    paths = trees.flatten(trees.split(ClassifierConfig(config).make)[1])
    rules = naming_of(family).encoder
    assert [path for path in paths if path.startswith("encoder/") and release_name(path, rules) is None] == []
