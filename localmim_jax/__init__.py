"""LocalMIM in JAX: masked image modeling with local multi-scale reconstruction."""

__version__ = "0.1.0"
