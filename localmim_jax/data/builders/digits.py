"""`digits`: scikit-learn's 1797 handwritten digits, 8 x 8 gray pixels."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from localmim_jax.errors import DataError

NUM_TRAIN = 1500  # the first; in scikit-learn's order the last are by other writers


class LocalmimDigits(tfds.core.GeneratorBasedBuilder):
    """1500 training and 297 test images of ten classes."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager
        return {
            "train": self._generate_examples(slice(None, NUM_TRAIN)),
            "test": self._generate_examples(slice(NUM_TRAIN, None)),
        }

    def _generate_examples(self, part: slice) -> Iterator[tuple[str, dict[str, Any]]]:
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise DataError(
                "digits are read from scikit-learn, which is not installed: pip install 'localmim-jax[demo]'"
            ) from error
        digits = load_digits()
        # Ink is 0 to 16.
        images = np.round(digits.images * (255 / 16)).astype(np.uint8)
        for index in range(len(images))[part]:
            data = io.BytesIO()
            Image.fromarray(images[index]).save(data, "PNG")
            yield f"{index:04d}", {"image": data.getvalue(), "label": int(digits.target[index])}
