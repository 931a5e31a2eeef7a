"""python -m localmim_jax.tables: see `localmim_jax.cli.tables`."""

from localmim_jax.cli import program, tables

if __name__ == "__main__":
    program.run(tables.main, tables.define_flags, usage=tables.__doc__, positional="names")
