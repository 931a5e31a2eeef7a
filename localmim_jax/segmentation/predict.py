"""Labels of images outside a dataset: a trained segmentation model, and the names of its classes."""

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict
from PIL import Image

from localmim_jax.convert import files
from localmim_jax.convert.weights import Weights
from localmim_jax.errors import ConfigError, DataError
from localmim_jax.files import read_json
from localmim_jax.params import merge
from localmim_jax.segmentation import task
from localmim_jax.segmentation.sliding import labels_at
from localmim_jax.tasks import initialize


class Predictor:
    """A trained segmentation model for images of any size.

    Args:
        config: config of a segmentation run. Images are resized as in its evaluation, with the same windows, scales and
            mirror images.
        model: (graph definition, parameters, model state) of the trained model.

    Raises:
        ConfigError: impossible evaluation settings.
    """

    def __init__(self, config: ConfigDict, model: tuple[Any, Any, Any]):
        settings = task.evaluation_config(config, task.model_config(config))
        self._transform, scores = task.eval_transform(config), task.score_function(config, settings)
        graphdef, *arrays = model
        self._params, self._model_state = jax.device_put(tuple(arrays))

        def compute(params: Any, model_state: Any, batch: Any, size: tuple[int, int]) -> jax.Array:
            return labels_at(scores(merge(graphdef, params, model_state), batch), jnp.array([size]), size)[0]

        self._compute = jax.jit(compute, static_argnums=3)

    def __call__(self, images: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(image, labels uint8 [h, w]) of each uint8 image [h, w, 3]."""
        for image in images:
            batch = {name: array[None] for name, array in self._transform.images(Image.fromarray(image)).items()}
            size = image.shape[0], image.shape[1]
            yield image, np.asarray(self._compute(self._params, self._model_state, batch, size))


def require_segmenter(checkpoint: str, weights: Weights) -> None:
    """Raises ConfigError unless the weights are those of a segmentation model."""
    if weights.info.kind != "segmenter":
        raise ConfigError(
            f"{checkpoint} is not a segmentation model ({weights.info.kind}): train one with a segmentation recipe"
        )


def class_names(config: ConfigDict, checkpoint: str) -> tuple[str, ...]:
    """The names of the classes: as recorded by the checkpoint's run, else from the config's dataset, else numbers.

    Raises:
        ConfigError: the number of names is not the model's number of classes.
    """
    count = config.model.num_classes
    try:
        run = initialize.run_directory(files.local_path(checkpoint))
        names = tuple(map(str, read_json(run / task.RESULTS)["classes"]))
    except (DataError, OSError, ValueError, KeyError, TypeError):
        try:
            names = task.open_split(config, config.data.split).class_names
        except DataError as error:
            logging.warning("classes are only numbered: %s", error)
            names = tuple(f"class {i + 1}" for i in range(count))
    if len(names) != count:
        raise ConfigError(f"{checkpoint} names {len(names)} classes, and its model has {count}")
    return names
