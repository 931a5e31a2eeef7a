"""The Python API: `load`, `create_model`, `train` and what they return. `localmim_jax` imports it lazily."""

from localmim_jax.api.binding import config_of, fill_model
from localmim_jax.api.loading import bind, create_model, load
from localmim_jax.api.model import Model
from localmim_jax.api.results import Detections, Features, Reconstruction, Segmentation, draw_sheet
from localmim_jax.api.training import augmentation, train
from localmim_jax.engine.loggers.base import Logger

__all__ = [
    "Detections",
    "Features",
    "Logger",
    "Model",
    "Reconstruction",
    "Segmentation",
    "augmentation",
    "bind",
    "config_of",
    "create_model",
    "draw_sheet",
    "fill_model",
    "load",
    "train",
]
