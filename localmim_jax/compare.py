"""python -m localmim_jax.compare: see `localmim_jax.cli.compare`."""

from localmim_jax.cli import compare, program

if __name__ == "__main__":
    program.run(compare.main, compare.define_flags, usage=compare.__doc__)
