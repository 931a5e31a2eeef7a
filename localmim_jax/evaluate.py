"""python -m localmim_jax.evaluate: see `localmim_jax.commands.evaluate`."""

from localmim_jax.commands import cli, evaluate

if __name__ == "__main__":
    cli.run(evaluate.main, evaluate.define_flags, usage=evaluate.__doc__)
