"""A TFDS dataset made of examples from anywhere: other folders, other formats, or images made smaller beforehand."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow_datasets as tfds


class Copy(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]  # TFDS's metaclass
    """Encoded images with their file names, and labels or masks where there are class names, in the order given.

    Args:
        name: of the dataset, in snake_case.
        splits: name -> function that gives its examples, {"image": bytes, "file_name": str, optional "label": int
            or, with `masks`, "annotation": bytes}.
        class_names: of the labels, or of the masks; () for none.
        channels: of the images.
        description: what the dataset is.
        data_dir: where TFDS keeps datasets.
        masks: whether there is a mask for every image, instead of a label.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self,
        name: str,
        splits: Mapping[str, Callable[[], Iterator[dict[str, Any]]]],
        class_names: tuple[str, ...],
        channels: int,
        description: str,
        data_dir: str,
        masks: bool = False,
    ):
        self.name = name
        self._splits, self._class_names, self._channels = splits, class_names, channels
        self._text, self._masks = description, masks
        super().__init__(data_dir=data_dir, file_format=tfds.core.FileFormat.ARRAY_RECORD)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(None, None, self._channels)),
            "file_name": tfds.features.Text(),
        }
        if self._masks:
            names = list(self._class_names)
            features["annotation"] = tfds.features.LabeledImage(labels=names, shape=(None, None, 1))
        elif self._class_names:
            features["label"] = tfds.features.ClassLabel(names=list(self._class_names))
        # Kept in order, TFDS needs no second copy of the data for shuffling; training shuffles by itself.
        return tfds.core.DatasetInfo(
            builder=self,
            description=self._text,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager
        return {split: self._generate_examples(examples) for split, examples in self._splits.items()}

    def _generate_examples(
        self, examples: Callable[[], Iterator[dict[str, Any]]]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        yield from enumerate(examples())
