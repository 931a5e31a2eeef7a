"""Recipes: one file each, `get_config()` inside. They import ml_collections and one another, nothing else."""
