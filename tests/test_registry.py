"""Whatever kind of backbone is registered keeps what `models.base` promises of it."""

import jax
import numpy as np
import pytest
from flax import nnx

from localmim_jax import params as trees
from localmim_jax.convert.names import release_name
from localmim_jax.convert.naming import naming_of
from localmim_jax.engine.optim import make_optimizer
from localmim_jax.models.pyramid import PyramidBackbone
from localmim_jax.models.registry import KINDS, VARIANTS
from localmim_jax.tasks.lookup import TASKS
from tests.defaults import classifier_config, encoder_config, localmim_config, optimizer_settings, target_config

CONFIGS = {variant: encoder_config(variant) for variant in VARIANTS}
SMALLEST = {family: next(iter(kind.variants)) for family, kind in KINDS.items()}


@pytest.mark.parametrize("variant", CONFIGS)
def test_a_variant_has_one_kind_and_describes_itself(variant):
    config = CONFIGS[variant]
    assert KINDS[config.family].variants[variant] is VARIANTS[variant][1]
    info = config.describe()
    assert (info.family, info.kind, info.image_size) == (config.family, "encoder", (224, 224))
    assert info.num_heads == config.heads


@pytest.mark.parametrize("family", KINDS)
def test_features_are_as_announced(family):
    config = encoder_config(SMALLEST[family])
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
    config = encoder_config(SMALLEST[family])
    paths = trees.flatten(trees.split(classifier_config(config).make)[1])
    assert {config.layer_of(path) for path in paths} == set(range(config.num_blocks + 2))


@pytest.mark.parametrize("family", KINDS)
def test_one_rule_of_weight_decay_covers_each_parameter_in_every_task(family):
    config = encoder_config(SMALLEST[family])
    assert set(config.weight_decay) == set(TASKS) - {"linear_probe"}  # which trains the head alone, by fine-tuning's
    cells = config.default_cells(config.default_taps)
    pretrain = localmim_config(config, config.default_taps, target_config(cells=cells))
    dense = config.for_dense()
    models = {
        "pretrain": pretrain.make,
        "finetune": classifier_config(config.for_classification()).make,
        "segment": lambda rngs: PyramidBackbone(dense, rngs=rngs),
        "detect": lambda rngs: PyramidBackbone(dense, rngs=rngs),
    }
    for task, make in models.items():
        paths = trees.flatten(trees.split(make)[1])
        make_optimizer(optimizer_settings(), paths, config.weight_decay[task])  # raises unless exactly one


@pytest.mark.parametrize("family", KINDS)
def test_the_naming_table_covers_the_encoder(family):
    config = encoder_config(SMALLEST[family]).for_classification()
    paths = trees.flatten(trees.split(classifier_config(config).make)[1])
    rules = naming_of(family).encoder
    assert [path for path in paths if path.startswith("encoder/") and release_name(path, rules) is None] == []
