"""Soft targets, mixup and cutmix of a whole batch, on the device and from a key.

"mixup: Beyond Empirical Risk Minimization" (Zhang et al., 2018) and "CutMix" (Yun et al., 2019), as LocalMIM's
fine-tuning uses them (supplement, Table 4; docs/method.md): one of the two is chosen per batch, one lambda is drawn per
batch, and example i is mixed with example b - 1 - i.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int, PRNGKeyArray

from localmim_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class MixConfig:
    """How a batch is mixed.

    Attributes:
        mixup, cutmix: parameter a of the Beta(a, a) that lambda comes from; 0 turns that kind off.
        switch_prob: probability of cutmix where both are on.
        label_smoothing: fraction of each target that is spread evenly over all classes, in [0, 1).
    """

    mixup: float
    cutmix: float
    switch_prob: float
    label_smoothing: float

    def __post_init__(self) -> None:
        if self.mixup < 0 or self.cutmix < 0:
            raise ConfigError(f"augment.mixup {self.mixup} and cutmix {self.cutmix} must be at least 0 (0 is off)")
        if not 0 <= self.switch_prob <= 1:
            raise ConfigError(f"augment.switch_prob is {self.switch_prob}; it must be in [0, 1]")
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"augment.label_smoothing is {self.label_smoothing}; it must be in [0, 1)")


def soft_targets(labels: Int[Array, " b"], num_classes: int, smoothing: float) -> Float32[Array, "b {num_classes}"]:
    """Smoothed one-hot targets, rows summing to 1, of labels in [0, num_classes)."""
    one_hot = jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)
    return one_hot * (1 - smoothing) + smoothing / num_classes


def mix(
    key: PRNGKeyArray,
    images: Float32[Array, "b h w c"],
    labels: Int[Array, " b"],
    num_classes: int,
    config: MixConfig,
) -> tuple[Float32[Array, "b h w c"], Float32[Array, "b {num_classes}"]]:
    """A batch mixed with itself in reverse order, and its soft targets.

    Args:
        key: draws the kind, lambda and the box.
        images: normalized.
        labels: in [0, num_classes).
        num_classes: length of a target.
        config: what to draw from.

    Returns:
        The images, and targets whose rows sum to 1.
    """
    targets = soft_targets(labels, num_classes, config.label_smoothing)
    if not config.mixup and not config.cutmix:
        return images, targets
    kind_key, mixup_key, cutmix_key, box_key = jax.random.split(key, 4)
    h, w = images.shape[1:3]
    blend = jnp.ones((), jnp.float32)
    if config.mixup:
        blend = jax.random.beta(mixup_key, config.mixup, config.mixup, dtype=jnp.float32)
    own, share = jnp.broadcast_to(blend, (h, w)), blend  # weight of an example's own pixels, and of its own target
    if config.cutmix:
        box = cutmix_box(box_key, jax.random.beta(cutmix_key, config.cutmix, config.cutmix, dtype=jnp.float32), h, w)
        chosen = jax.random.bernoulli(kind_key, config.switch_prob if config.mixup else 1.0)
        own = jnp.where(chosen, jnp.where(box, jnp.float32(0), jnp.float32(1)), own)
        share = jnp.where(chosen, 1 - box.mean(dtype=jnp.float32), share)
    own = own[None, :, :, None]
    return images * own + images[::-1] * (1 - own), targets * share + targets[::-1] * (1 - share)


def cutmix_box(key: PRNGKeyArray, blend: Float32[Array, ""], h: int, w: int) -> Bool[Array, "{h} {w}"]:
    """True in a box of the image's shape and of 1 - blend of its area, cut off at the borders.

    The center is uniform over the pixels, and the sides are rounded down to even numbers, as in timm.
    """
    ratio = jnp.sqrt(1 - blend)
    y_key, x_key = jax.random.split(key)

    def inside(key: PRNGKeyArray, size: int) -> Bool[Array, " {size}"]:
        half = (size * ratio).astype(jnp.int32) // 2
        center = jax.random.randint(key, (), 0, size)
        places = jnp.arange(size)
        return (places >= center - half) & (places < center + half)

    return inside(y_key, h)[:, None] & inside(x_key, w)[None, :]


def soft_cross_entropy(logits: Float[Array, "b c"], targets: Float[Array, "b c"]) -> Float32[Array, ""]:
    """Mean over the batch of -sum(targets * log softmax(logits)), in float32."""
    return -(targets * jax.nn.log_softmax(logits.astype(jnp.float32))).sum(axis=-1).mean()
