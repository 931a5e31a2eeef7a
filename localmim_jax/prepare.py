"""python -m localmim_jax.prepare: see `localmim_jax.cli.prepare`."""

from localmim_jax.cli import prepare, program

if __name__ == "__main__":
    program.run(prepare.main, prepare.define_flags, usage=prepare.__doc__)
