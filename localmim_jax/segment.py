"""python -m localmim_jax.segment: see `localmim_jax.cli.segment`."""

from localmim_jax.cli import program, segment

if __name__ == "__main__":
    program.run(segment.main, segment.define_flags, usage=segment.__doc__, positional="images")
