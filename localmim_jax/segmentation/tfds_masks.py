"""Segmentation datasets that TFDS has prepared, such as `scene_parse150`, which is ADE20K, or a copy of a folder."""

from typing import Any

from localmim_jax.data import tfds_source
from localmim_jax.data.storage import default_dir
from localmim_jax.errors import DataError
from localmim_jax.segmentation.numbering import Numbering
from localmim_jax.segmentation.source import MaskSource

FEATURES = ("annotation", "segmentation_mask", "segmentation_label", "mask")  # what datasets call their masks


class TfdsMasks(MaskSource):
    """A split of a prepared TFDS dataset with encoded features "image" and one of `FEATURES`.

    Args:
        images: the same split as images.
        features: the dataset's.
        zero_ignored, mask_values: see `Numbering`.
        num_classes: taken where the dataset does not name its classes.

    Raises:
        DataError: no such feature.
        ConfigError: `mask_values` are not one for each class.
    """

    def __init__(
        self,
        images: tfds_source.TfdsSource,
        features: Any,
        zero_ignored: bool,
        num_classes: int,
        mask_values: tuple[int, ...] | None = None,
    ):
        self.name = images.name
        self._images = images
        fields = dict(features.items())
        self._mask = next((name for name in FEATURES if name in fields), "")
        if not self._mask or not (images.encoded and tfds_source.is_encoded(fields[self._mask])):
            wanted, found = f"{', '.join(FEATURES[:-1])} or {FEATURES[-1]}", ", ".join(fields)
            raise DataError(f"{self.name} has no encoded images with masks ({wanted}); features: {found}")
        names = tuple(getattr(fields[self._mask], "names", None) or ())
        self.class_names = names or tuple(f"class {i + 1}" for i in range(num_classes))
        self.num_classes = len(self.class_names)
        self.numbering = Numbering(self.num_classes, zero_ignored, mask_values)

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: int) -> tuple[bytes, bytes]:
        fields = self._images.fields(index)
        image, mask = (fields[name].bytes_list.value[0] for name in ("image", self._mask))
        return image, mask

    def fingerprint(self) -> str:
        return self._images.fingerprint()

    def key_of(self, index: int) -> str:
        return self._images.key_of(index)


def open_tfds_masks(
    name: str,
    split: str,
    data_dir: str,
    zero_ignored: bool,
    num_classes: int,
    mask_values: tuple[int, ...] | None = None,
) -> TfdsMasks:
    """The source for "tfds:<name>". Raises DataError as `tfds_source.open_tfds`, and where there are no masks."""
    images = tfds_source.open_tfds(name, split, data_dir)
    features = tfds_source.find_builder(name, default_dir(data_dir)).info.features
    return TfdsMasks(images, features, zero_ignored, num_classes, mask_values)
