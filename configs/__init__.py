"""Recipes: a file a run, each an encoder plus a task (`parts/`). Installed as `localmim_jax.configs`."""
