"""python -m localmim_jax.tables: see `localmim_jax.commands.tables`."""

from localmim_jax.commands import cli, tables

if __name__ == "__main__":
    cli.run(tables.main, tables.define_flags, usage=tables.__doc__, positional="names")
