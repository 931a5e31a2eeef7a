"""python -m localmim_jax.features: see `localmim_jax.commands.features`."""

from localmim_jax.commands import cli, features

if __name__ == "__main__":
    cli.run(features.main, features.define_flags, usage=features.__doc__)
