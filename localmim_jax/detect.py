"""python -m localmim_jax.detect: see `localmim_jax.commands.detect`."""

from localmim_jax.commands import cli, detect

if __name__ == "__main__":
    cli.run(detect.main, detect.define_flags, usage=detect.__doc__, positional="images")
