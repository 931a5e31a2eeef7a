"""python -m localmim_jax: the same as `localmim`."""

from localmim_jax.cli.commands import main

if __name__ == "__main__":
    main()
