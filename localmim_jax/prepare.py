"""python -m localmim_jax.prepare: see `localmim_jax.commands.prepare`."""

from localmim_jax.commands import cli, prepare

if __name__ == "__main__":
    cli.run(prepare.main, prepare.define_flags, usage=prepare.__doc__)
