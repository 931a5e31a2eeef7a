"""The recipes of a checkout: `configs/` at its top is the package `localmim_jax.configs`.

A wheel has that directory here, and Python prefers it to this file. With this file a checkout always has its own
recipes, installed or not, even where another checkout is installed.
"""

from pathlib import Path

__path__ = [str(Path(__file__).parents[1] / "configs")]
