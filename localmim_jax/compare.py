"""python -m localmim_jax.compare: see `localmim_jax.commands.compare`."""

from localmim_jax.commands import cli, compare

if __name__ == "__main__":
    cli.run(compare.main, compare.define_flags, usage=compare.__doc__)
