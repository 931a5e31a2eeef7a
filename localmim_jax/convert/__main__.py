"""python -m localmim_jax.convert: see `localmim_jax.commands.convert`."""

from localmim_jax.commands import cli, convert

if __name__ == "__main__":
    cli.run(convert.main, convert.define_flags, usage=convert.__doc__)
