"""TFDS builders of the small datasets that come with installed packages: prepared on first use, nothing downloaded."""
