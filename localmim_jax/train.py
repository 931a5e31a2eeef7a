"""python -m localmim_jax.train: see `localmim_jax.commands.train`."""

from localmim_jax.commands import cli, train

if __name__ == "__main__":
    cli.run(train.main, train.define_flags, usage=train.__doc__ or "")
