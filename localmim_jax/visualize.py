"""python -m localmim_jax.visualize: see `localmim_jax.cli.visualize`."""

from localmim_jax.cli import program, visualize

if __name__ == "__main__":
    program.run(visualize.main, visualize.define_flags, usage=visualize.__doc__, positional="images")
