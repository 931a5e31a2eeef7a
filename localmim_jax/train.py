"""python -m localmim_jax.train: see `localmim_jax.cli.train`."""

from localmim_jax.cli import program, train

if __name__ == "__main__":
    program.run(train.main, train.define_flags, usage=train.__doc__ or "")
