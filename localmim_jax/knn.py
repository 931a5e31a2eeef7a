"""python -m localmim_jax.knn: see `localmim_jax.cli.knn`."""

from localmim_jax.cli import knn, program

if __name__ == "__main__":
    program.run(knn.main, knn.define_flags, usage=knn.__doc__)
