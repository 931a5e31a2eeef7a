"""python -m localmim_jax.detect: see `localmim_jax.cli.detect`."""

from localmim_jax.cli import detect, program

if __name__ == "__main__":
    program.run(detect.main, detect.define_flags, usage=detect.__doc__, positional="images")
