"""LocalMIM in JAX: masked image modeling with local multi-scale reconstruction.

    model = localmim_jax.load("runs/quickstart")
    features = model.encode(images)

docs/api.md describes the Python API. Its names load with their first use: `import localmim_jax` imports nothing else.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from localmim_jax.api import (
        Detections,
        Features,
        Logger,
        Model,
        Reconstruction,
        Segmentation,
        augmentation,
        create_model,
        draw_sheet,
        load,
        train,
    )
    from localmim_jax.recipes.load import load_config

_HOMES = {
    "load_config": "localmim_jax.recipes.load",
    **dict.fromkeys(("load", "create_model", "train", "augmentation", "draw_sheet", "Logger"), "localmim_jax.api"),
    **dict.fromkeys(("Model", "Features", "Reconstruction", "Segmentation", "Detections"), "localmim_jax.api"),
}
__all__ = [  # noqa: RUF022
    "load",
    "create_model",
    "train",
    "augmentation",
    "load_config",
    "Logger",
    "Model",
    "Features",
    "Reconstruction",
    "draw_sheet",
    "Segmentation",
    "Detections",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
