"""python -m localmim_jax.convert: see `localmim_jax.cli.convert`."""

from localmim_jax.cli import convert, program

if __name__ == "__main__":
    program.run(convert.main, convert.define_flags, usage=convert.__doc__)
