"""RandAugment on Pillow images: "rand-m9-mstd0.5-inc1" of the fine-tuning recipe, op for op as in the reference.

"RandAugment: Practical automated data augmentation with a reduced search space" (Cubuk et al., 2020), in the form
that timm made common: fifteen operations, those of changing strength all getting stronger with the magnitude ("inc1").
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from localmim_jax.data.augment import TrainTransform, label_of
from localmim_jax.data.decode import to_array
from localmim_jax.errors import ConfigError

Fill = tuple[int, ...]  # one value per band, for pixels that come from outside the image

MAX_MAGNITUDE = 10.0
NEGATE_PROBABILITY = 0.5  # of the ops that have a direction


@dataclasses.dataclass(frozen=True)
class RandAugmentConfig:
    """Number, strength and probability of the ops.

    Attributes:
        magnitude, magnitude_std: each op's magnitude is normal with these, clipped to [0, 10].
        num_ops: ops per image, drawn with replacement.
        probability: probability with which each drawn op is applied.
    """

    magnitude: float = 9.0
    magnitude_std: float = 0.5
    num_ops: int = 2
    probability: float = 0.5


@dataclasses.dataclass(frozen=True)
class RandAugmentTransform:
    """The crop and flip of `TrainTransform`, then RandAugment: (example, rng) -> finished example."""

    crop: TrainTransform
    config: RandAugmentConfig
    fill: Fill

    @classmethod
    def of(cls, crop: TrainTransform, recipe: str, mean: tuple[float, ...]) -> "RandAugmentTransform":
        """After `crop`, a recipe (see `parse`). Uncovered pixels get the dataset's mean, per channel in 0..1.

        Raises:
            ConfigError: an unknown recipe, or images that are neither gray nor RGB.
        """
        if crop.channels not in (1, 3):
            raise ConfigError(
                f"augment.randaugment is for images of 1 or 3 channels, not {crop.channels}: set it to '' for none"
            )
        return cls(crop, parse(recipe), tuple(min(255, round(255 * value)) for value in mean))

    def __call__(self, example: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
        image = self.crop.crop(example["image"], rng, example.get("levels"))
        assert isinstance(image, Image.Image)  # as every image of 1 or 3 channels is
        image = rand_augment(image, self.config, self.fill, rng)
        return {"image": to_array(image), **label_of(example)}


def parse(recipe: str) -> RandAugmentConfig:
    """The config that a recipe such as "rand-m9-mstd0.5-inc1" stands for.

    m: magnitude, mstd: its standard deviation (default 0), n: ops per image (2), p: probability of each (0.5); inc1 is
    required.

    Raises:
        ConfigError: anything else.
    """
    problem = f"augment.randaugment {recipe!r} is not understood; write it as in 'rand-m9-mstd0.5-inc1' (also n, p)"
    name, *parts = recipe.split("-")
    fields = {}
    for part in parts:
        match = re.fullmatch(r"(mstd|m|n|p|inc)(\d+(?:\.\d+)?)", part)
        if match is None or match[1] in fields:
            raise ConfigError(problem)
        fields[match[1]] = float(match[2])
    if name != "rand" or fields.pop("inc", 0) != 1 or "m" not in fields:
        raise ConfigError(problem)
    if fields["m"] > MAX_MAGNITUDE or fields.get("p", 0.5) > 1 or fields.get("n", 2) % 1:
        raise ConfigError(f"augment.randaugment {recipe!r}: m is at most 10, p at most 1, n whole")
    return RandAugmentConfig(
        magnitude=fields["m"],
        magnitude_std=fields.get("mstd", 0.0),
        num_ops=int(fields.get("n", 2)),
        probability=fields.get("p", 0.5),
    )


def rand_augment(image: Image.Image, config: RandAugmentConfig, fill: Fill, rng: np.random.Generator) -> Image.Image:
    """One randomly changed image of the same mode ("RGB" or "L") and size."""
    names = tuple(OPS)
    for index in rng.integers(len(names), size=config.num_ops):
        if rng.random() >= config.probability:
            continue
        magnitude = np.clip(rng.normal(config.magnitude, config.magnitude_std), 0.0, MAX_MAGNITUDE)
        sign = -1.0 if rng.random() < NEGATE_PROBABILITY else 1.0
        image = apply(names[index], image, float(magnitude), sign, fill)
    return image


def apply(name: str, image: Image.Image, magnitude: float, sign: float, fill: Fill) -> Image.Image:
    """One op at a magnitude in [0, 10]. `sign` (+1 or -1) matters only to ops that have a direction."""
    level_to_argument, op = OPS[name]
    return op(image, level_to_argument(magnitude / MAX_MAGNITUDE, sign), fill)


def _scaled(limit: float) -> Callable[[float, float], float]:
    return lambda level, sign: sign * level * limit


def _enhancement(level: float, sign: float) -> float:
    return max(0.1, 1.0 + sign * level * 0.9)


def _no_argument(level: float, sign: float) -> float:
    return 0.0


def _bits_kept(level: float, sign: float) -> int:
    return 4 - int(level * 4)


def _solarize_threshold(level: float, sign: float) -> int:
    return 256 - int(level * 256)


def _solarize_addend(level: float, sign: float) -> int:
    return min(128, int(level * 110))


def _affine(image: Image.Image, matrix: tuple[float, ...], fill: Fill) -> Image.Image:
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BICUBIC, fillcolor=_color(fill)
    )


def _color(fill: Fill) -> Fill | int:
    return fill if len(fill) > 1 else fill[0]


def _rotate(image: Image.Image, degrees: float, fill: Fill) -> Image.Image:
    return image.rotate(degrees, resample=Image.Resampling.BICUBIC, fillcolor=_color(fill))


def _posterize(image: Image.Image, bits: int, fill: Fill) -> Image.Image:
    # Not ImageOps.posterize, which refuses the 0 bits (a black image) that magnitude 10 asks for.
    table = [value & ~(2 ** (8 - bits) - 1) for value in range(256)]
    return image.point(table * len(image.getbands()))


def _solarize_add(image: Image.Image, addend: int, fill: Fill) -> Image.Image:
    table = [min(255, value + addend) if value < 128 else value for value in range(256)]
    return image.point(table * len(image.getbands()))


def _enhance(kind: Callable[[Image.Image], ImageEnhance._Enhance]):
    return lambda image, factor, fill: kind(image).enhance(factor)


OPS: dict[str, tuple[Callable, Callable]] = {
    "AutoContrast": (_no_argument, lambda image, _, fill: ImageOps.autocontrast(image)),
    "Equalize": (_no_argument, lambda image, _, fill: ImageOps.equalize(image)),
    "Invert": (_no_argument, lambda image, _, fill: ImageOps.invert(image)),
    "Rotate": (_scaled(30.0), _rotate),
    "PosterizeIncreasing": (_bits_kept, _posterize),
    "SolarizeIncreasing": (_solarize_threshold, lambda image, limit, fill: ImageOps.solarize(image, limit)),
    "SolarizeAdd": (_solarize_addend, _solarize_add),
    "ColorIncreasing": (_enhancement, _enhance(ImageEnhance.Color)),
    "ContrastIncreasing": (_enhancement, _enhance(ImageEnhance.Contrast)),
    "BrightnessIncreasing": (_enhancement, _enhance(ImageEnhance.Brightness)),
    "SharpnessIncreasing": (_enhancement, _enhance(ImageEnhance.Sharpness)),
    "ShearX": (_scaled(0.3), lambda image, x, fill: _affine(image, (1, x, 0, 0, 1, 0), fill)),
    "ShearY": (_scaled(0.3), lambda image, y, fill: _affine(image, (1, 0, 0, y, 1, 0), fill)),
    "TranslateXRel": (_scaled(0.45), lambda image, x, fill: _affine(image, (1, 0, x * image.width, 0, 1, 0), fill)),
    "TranslateYRel": (_scaled(0.45), lambda image, y, fill: _affine(image, (1, 0, 0, 0, 1, y * image.height), fill)),
}
