"""Random erasing on the device: a box of an image becomes noise.

"Random Erasing Data Augmentation" (Zhong et al., 2020), with the constants of the fine-tuning recipe.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from localmim_jax.errors import ConfigError

ATTEMPTS = 10  # boxes tried before an image is left alone


@dataclasses.dataclass(frozen=True)
class ErasingConfig:
    """What is erased; the defaults are the fine-tuning recipe's (docs/method.md).

    Attributes:
        probability: fraction of images that lose a box; 0 is off.
        area: smallest and largest fraction of the image, drawn uniformly.
        aspect: smallest and largest height / width, drawn log-uniformly.
    """

    probability: float = 0.25
    area: tuple[float, float] = (0.02, 1 / 3)
    aspect: tuple[float, float] = (0.3, 1 / 0.3)

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ConfigError(f"augment.erasing is {self.probability}; it must be a probability in [0, 1]")
        for name, (low, high) in {"area": self.area, "aspect": self.aspect}.items():
            if not 0 < low <= high:
                raise ConfigError(f"random erasing's {name} is ({low}, {high}); both must be positive, lowest first")


def random_erasing(
    key: PRNGKeyArray, images: Float[Array, "b h w c"], config: ErasingConfig
) -> Float[Array, "b h w c"]:
    """Normalized images with one box each replaced, with some probability, by normal(0, 1) noise per value.

    A box that does not fit into the image is drawn again, ten times at most, as in timm.

    Args:
        key: key of the batch; every image draws its own box.
        images: normalized.
        config: what to draw from.
    """
    if not config.probability:
        return images
    erase_key, box_key, noise_key = jax.random.split(key, 3)
    boxes = jax.vmap(lambda key: _box(key, images.shape[1], images.shape[2], config))
    erased = jax.random.bernoulli(erase_key, config.probability, (images.shape[0],))
    inside = boxes(jax.random.split(box_key, images.shape[0])) & erased[:, None, None]
    return jnp.where(inside[..., None], jax.random.normal(noise_key, images.shape, images.dtype), images)


def _box(key: PRNGKeyArray, h: int, w: int, config: ErasingConfig) -> Bool[Array, "{h} {w}"]:
    """The first of the drawn boxes that is smaller than the image; all False if none is."""
    area_key, aspect_key, place_key = jax.random.split(key, 3)
    area = h * w * jax.random.uniform(area_key, (ATTEMPTS,), minval=config.area[0], maxval=config.area[1])
    low, high = map(math.log, config.aspect)
    aspect = jnp.exp(jax.random.uniform(aspect_key, (ATTEMPTS,), minval=low, maxval=high))
    heights = jnp.round(jnp.sqrt(area * aspect)).astype(jnp.int32)
    widths = jnp.round(jnp.sqrt(area / aspect)).astype(jnp.int32)
    fits = (heights < h) & (widths < w)
    first = jnp.argmax(fits)

    def inside(key: PRNGKeyArray, length: Int[Array, ""], size: int) -> Bool[Array, " {size}"]:
        start = jax.random.randint(key, (), 0, jnp.maximum(size - length, 0) + 1)
        places = jnp.arange(size)
        return (places >= start) & (places < start + length)

    y_key, x_key = jax.random.split(place_key)
    rows, columns = inside(y_key, heights[first], h), inside(x_key, widths[first], w)
    return rows[:, None] & columns[None, :] & fits[first]
