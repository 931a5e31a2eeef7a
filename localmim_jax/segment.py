"""python -m localmim_jax.segment: see `localmim_jax.commands.segment`."""

from localmim_jax.commands import cli, segment

if __name__ == "__main__":
    cli.run(segment.main, segment.define_flags, usage=segment.__doc__, positional="images")
