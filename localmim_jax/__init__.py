"""LocalMIM in JAX: masked image modelling with local multi-scale reconstruction."""

__version__ = "0.1.0"
