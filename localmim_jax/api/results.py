"""The results that a model returns for images: small dataclasses of numpy arrays."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from localmim_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Features:
    """Features of n whole, unmasked images.

    Attributes:
        pooled: float32 [n, d], the normalized and pooled feature of the last layer, which k-NN and heads read; None
            if not requested.
        tokens: float32 [n, p + t, d], the output of a layer, not normalized: p prefix tokens (a ViT's class token and
            registers), then the patches row by row; None if not requested.
        grid: (rows, columns) of the patches, so that t = rows * columns.
    """

    pooled: np.ndarray | None
    tokens: np.ndarray | None
    grid: tuple[int, int]

    @property
    def patches(self) -> np.ndarray:
        """The tokens of the patches as a map, float32 [n, rows, columns, d]. Raises ConfigError without tokens."""
        if self.tokens is None:
            raise ConfigError("these features have no tokens: encode with tokens=True")
        rows, columns = self.grid
        return self.tokens[:, -rows * columns :].reshape(len(self.tokens), rows, columns, -1)


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """The reconstruction of one image under a mask: one target and one prediction per tapped layer.

    Attributes:
        image: uint8 [h, w, c] at the model's image size.
        mask: [g_h, g_w] over mask units, 1 where masked.
        targets, predictions: float32 [cells, values] of each scale, see `method.targets`. Predictions of cells that
            are visible are not trained.
        description: the meaning of the values, for drawing.
        layers: the tapped layer of each scale, counted from 1.
        mean, std: normalization of each channel, for pixels in 0..1.
    """

    image: np.ndarray
    mask: np.ndarray
    targets: tuple[np.ndarray, ...]
    predictions: tuple[np.ndarray, ...]
    description: Any
    layers: tuple[int, ...]
    mean: Sequence[float]
    std: Sequence[float]

    def draw(self) -> np.ndarray:
        """uint8 [h', w', 3]: the image, and each layer's target above its prediction; see `localmim visualize`."""
        from localmim_jax.evals.reconstruction import draw_one

        return draw_one(self.arrays(), self.description, self.layers, self.mean, self.std)

    def arrays(self) -> dict[str, np.ndarray]:
        """Image, mask, targets and predictions by the names of `evals.reconstruction`."""
        arrays = {"image": self.image, "mask": self.mask}
        for i, (target, prediction) in enumerate(zip(self.targets, self.predictions, strict=True)):
            arrays |= {f"target/{i}": target, f"prediction/{i}": prediction}
        return arrays


def draw_sheet(reconstructions: Sequence[Reconstruction], layer: int = 0) -> np.ndarray:
    """One picture of several images, one column each: image, visible patches, prediction, target.

    Args:
        reconstructions: reconstructions of one model.
        layer: the tapped layer whose scale is drawn, counted from 1; 0 for the second tap, or the only one.

    Returns:
        uint8 [h, w, 3].

    Raises:
        ConfigError: the layer is not tapped.
    """
    from localmim_jax.evals.reconstruction import draw_sheet

    first = reconstructions[0]
    if layer and layer not in first.layers:
        raise ConfigError(f"layer={layer}: the tapped layers are {', '.join(map(str, first.layers))}")
    scale = first.layers.index(layer) if layer else min(1, len(first.layers) - 1)
    return draw_sheet([reconstruction.arrays() for reconstruction in reconstructions], first.description, scale)


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """The classes of an image's pixels.

    Attributes:
        labels: uint8 [h, w] at the size of the image given, from 0.
        class_names: name of each label.
    """

    labels: np.ndarray
    class_names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Detections:
    """The objects found in an image, sorted by score.

    Attributes:
        boxes: float32 [k, 4], left, top, right, bottom in pixels of the image given.
        scores: float32 [k] in 0..1.
        labels: int32 [k], from 0.
        masks: float32 [k, 28, 28] in 0..1 over each box.
        class_names: name of each label.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: np.ndarray
    class_names: tuple[str, ...]
