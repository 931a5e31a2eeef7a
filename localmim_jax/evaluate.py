"""python -m localmim_jax.evaluate: see `localmim_jax.cli.evaluate`."""

from localmim_jax.cli import evaluate, program

if __name__ == "__main__":
    program.run(evaluate.main, evaluate.define_flags, usage=evaluate.__doc__)
