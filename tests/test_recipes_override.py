"""Keys of configs: changed, listed and recorded."""

import json

from localmim_jax.recipes.load import load_config
from localmim_jax.recipes.override import flatten, override, record


def test_record_survives_json():
    config = override(load_config("configs/vit_b_100ep.py"), ["model.taps=2,3"])
    recorded = record(config)
    assert json.loads(json.dumps(recorded)) == recorded
    assert recorded["model"]["taps"] == [2, 3]
    assert recorded["num_steps"] is None
    assert config.model.taps == (2, 3)


def test_keys_are_listed_as_overrides_name_them():
    keys = flatten(load_config("configs/quickstart.py"))
    assert keys["model.target.bins"] == 18
    assert keys["num_steps"] is None
    assert "model" not in keys
