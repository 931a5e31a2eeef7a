"""Recipes are found and become configs."""

from localmim_jax.recipes.load import load_config


def test_config_file_with_an_argument(tmp_path):
    path = tmp_path / "recipe.py"
    path.write_text(
        "from ml_collections import ConfigDict\ndef get_config(size):\n    return ConfigDict({'size': size})\n"
    )
    assert load_config(f"{path}:large").size == "large"


def test_a_recipe_of_ones_own_wins(tmp_path, monkeypatch):
    packaged = load_config("configs/quickstart.py")
    (tmp_path / "configs").mkdir()
    own = "from ml_collections import ConfigDict\n\ndef get_config():\n    return ConfigDict({'batch_size': 7})\n"
    (tmp_path / "configs" / "quickstart.py").write_text(own)
    monkeypatch.chdir(tmp_path)
    assert load_config("configs/quickstart.py").batch_size == 7
    (tmp_path / "configs" / "quickstart.py").unlink()
    assert load_config("configs/quickstart.py") == packaged
