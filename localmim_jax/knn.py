"""python -m localmim_jax.knn: see `localmim_jax.commands.knn`."""

from localmim_jax.commands import cli, knn

if __name__ == "__main__":
    cli.run(knn.main, knn.define_flags, usage=knn.__doc__)
