"""python -m localmim_jax.visualize: see `localmim_jax.commands.visualize`."""

from localmim_jax.commands import cli, visualize

if __name__ == "__main__":
    cli.run(visualize.main, visualize.define_flags, usage=visualize.__doc__, positional="images")
