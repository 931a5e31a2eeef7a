"""The Python API: `load`, `create_model` and what they return. `import localmim_jax` exports it lazily."""

from localmim_jax.api.binding import config_of, fill_model
from localmim_jax.api.loading import bind, create_model, load
from localmim_jax.api.model import Model
from localmim_jax.api.results import Detections, Features, Reconstruction, Segmentation, draw_sheet

__all__ = [
    "Detections",
    "Features",
    "Model",
    "Reconstruction",
    "Segmentation",
    "bind",
    "config_of",
    "create_model",
    "draw_sheet",
    "fill_model",
    "load",
]
