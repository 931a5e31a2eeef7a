"""Random changes of color: SimCLR's color jitter and grayscale, with the rules of torchvision's ColorJitter.

Chen et al., "A simple framework for contrastive learning of visual representations" (2020), appendix A: strengths of
(0.8, 0.8, 0.8, 0.2), and grayscale with probability 0.2. LocalMIM and MAE use neither; MAE reports that color jitter
lowers its accuracy (He et al., 2022, Table 1e), so measure before you keep it.
"""

from typing import TypeAlias

import numpy as np
from PIL import Image, ImageEnhance

from localmim_jax.data.decode import ImageLike

Strengths: TypeAlias = tuple[float, float, float, float]  # of brightness, contrast, saturation and hue

NO_JITTER: Strengths = (0.0, 0.0, 0.0, 0.0)

_ENHANCE = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def jitter(image: ImageLike, strengths: Strengths, rng: np.random.Generator) -> ImageLike:
    """The image with brightness, contrast, saturation and hue changed at random and in a random order.

    Args:
        image: "RGB", or "L" with strengths of brightness and contrast alone.
        strengths: the first three draw a factor from [max(0, 1 - s), 1 + s], uniform; the hue is rotated by a uniform
            fraction of the circle in [-s, s]. At 0 nothing is drawn for it.
        rng: draws the order, then the changes in their order.
    """
    assert isinstance(image, Image.Image)  # as every image of 1 or 3 channels is
    for index in rng.permutation(len(strengths)):
        strength = strengths[index]
        if not strength:
            continue
        if index < len(_ENHANCE):
            factor = float(rng.uniform(max(0.0, 1 - strength), 1 + strength))
            image = _ENHANCE[index](image).enhance(factor)
        else:
            image = rotate_hue(image, float(rng.uniform(-strength, strength)))
    return image


def rotate_hue(image: Image.Image, fraction: float) -> Image.Image:
    """An RGB image with its hue rotated by a fraction of the circle, in Pillow's HSV of 8 bits a channel."""
    hue, saturation, value = image.convert("HSV").split()
    shift = round(255 * fraction)
    hue = hue.point([(level + shift) % 256 for level in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def to_gray(image: ImageLike) -> ImageLike:
    """An RGB image without its colors (ITU-R 601 luma), still in three channels."""
    assert isinstance(image, Image.Image)
    return image.convert("L").convert("RGB")
