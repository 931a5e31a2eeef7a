"""python -m localmim_jax.train: the same as `localmim train`."""

import sys

from localmim_jax.cli import program, train

if __name__ == "__main__":
    program.run(train, "localmim train", sys.argv[1:])
