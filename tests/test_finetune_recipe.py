"""configs/finetune.py: model, image size and normalization come from the run that the new one starts from."""

import json

import pytest
from ml_collections import ConfigDict

from localmim_jax.cli import program
from localmim_jax.cli import train as train_command
from localmim_jax.configs import finetune as finetune_recipe
from localmim_jax.configs import quickstart, quickstart_swin
from localmim_jax.errors import ConfigError, DataError
from localmim_jax.recipes.override import record
from localmim_jax.tasks import from_config
from tests.shrink import shrink


def test_the_recipe_for_any_run_takes_its_model_from_it(tmp_path):
    pretraining = shrink(quickstart.get_config())
    pretraining.model.update({"width": 16, "depth": 2, "num_heads": 2, "taps": (1, 2)})
    pretraining.model.target.cells = (4, 8)
    (tmp_path / "config.json").write_text(json.dumps(record(pretraining)))
    arguments = ["--config=configs/finetune.py", "--config.model.num_classes=10"]
    config = program.parse([*arguments, f"--config.checkpoint.init_from={tmp_path}"], train_command.define_flags).config
    assert (config.model.width, config.model.depth, config.model.num_heads) == (16, 2, 2)
    assert (config.image_size, config.data.channels, config.data.mean) == ((16, 16), 1, (0.306,))
    assert (config.model.variant, config.data.flip, config.model.num_classes) == ("vit_ti", False, 10)
    assert config.model.drop_path == 0.1
    classifier = from_config.classifier_config(config)
    assert classifier.encoder.patch_size == 8
    swin = finetune_recipe.get_config(ConfigDict(json.loads(json.dumps(record(quickstart_swin.get_config())))))
    assert (swin.model.depths, swin.model.window, swin.optimizer.layer_decay) == ((2, 2, 2), 4, 0.9)
    from_config.classifier_config(swin)
    elsewhere = tmp_path / "several" / "folders" / "below"
    elsewhere.mkdir(parents=True)
    (elsewhere / "weights.npz").write_bytes(b"")
    for start, words in (
        (
            elsewhere / "weights.npz",
            r"weights\.npz is a file that does not belong to a run.* use a recipe of their model",
        ),
        (elsewhere / "gone", r"checkpoint\.init_from: .*gone does not exist; this recipe takes the model from a run"),
    ):
        with pytest.raises(DataError, match=words):
            program.parse([*arguments, f"--config.checkpoint.init_from={start}"], train_command.define_flags)
    with pytest.raises(ConfigError, match=r"add --config\.checkpoint\.init_from=RUN"):
        program.parse(arguments, train_command.define_flags)
