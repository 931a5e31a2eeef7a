"""python -m localmim_jax.features: see `localmim_jax.cli.features`."""

from localmim_jax.cli import features, program

if __name__ == "__main__":
    program.run(features.main, features.define_flags, usage=features.__doc__)
