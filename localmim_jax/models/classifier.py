"""A backbone with one linear layer on its pooled last feature: fine-tuning and linear probing, ViT and Swin.

docs/method.md: ViT's patch tokens are mean-pooled, normalized, then classified; Swin's likewise, where timm normalizes
before it pools.
"""

import dataclasses
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32, PRNGKeyArray

from localmim_jax.errors import ConfigError
from localmim_jax.models.base import EncoderConfig, ModelConfig
from localmim_jax.models.info import ModelInfo
from localmim_jax.models.norm import LayerNorm

BATCH_NORM_EPSILON = 1e-6  # MAE's linear probe
BATCH_NORM_MOMENTUM = 0.9  # 1 - torch's 0.1


@dataclasses.dataclass(frozen=True)
class ClassifierConfig(ModelConfig):
    """A classifier.

    Attributes:
        encoder: the backbone.
        num_classes: at least 2.
        pool: "mean" over the patch tokens, or "class" for ViT's class token.
        head_order: "pool_norm" (the release, for ViT and Swin) or "norm_pool" (timm's Swin).
        head_std: standard deviation of the head's initial kernel; 2e-5 for fine-tuning, 0.02 for Swin from scratch.
        batch_norm: a batch norm without scale and bias before the head, as in MAE's linear probe.
    """

    kind: ClassVar[str] = "classifier"

    encoder: EncoderConfig
    num_classes: int
    pool: Literal["mean", "class"]
    head_order: Literal["pool_norm", "norm_pool"]
    head_std: float
    batch_norm: bool

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise ConfigError(f"model.num_classes is {self.num_classes}: at least 2 are needed")
        if self.pool not in ("mean", "class"):
            raise ConfigError(f"model.pool is {self.pool!r}: choose 'mean' or 'class'")
        if self.pool == "class" and not self.encoder.has_class_token:
            raise ConfigError("model.pool='class' needs a class token, which Swin lacks: choose 'mean'")
        if self.head_order not in ("pool_norm", "norm_pool"):
            raise ConfigError(f"model.head_order is {self.head_order!r}: choose 'pool_norm' or 'norm_pool'")
        if self.head_std <= 0:
            raise ConfigError(f"model.head_std is {self.head_std}: it must be above 0")

    def make(self, rngs: nnx.Rngs) -> "Classifier":
        """The classifier with random initial parameters."""
        return Classifier(self, rngs=rngs)

    def describe(self) -> ModelInfo:
        """A description of the classifier."""
        return dataclasses.replace(super().describe(), pool=self.pool, head_order=self.head_order)


class Classifier(nnx.Module):
    """encoder -> pooled and normalized feature -> logits. Everything after the encoder is float32."""

    def __init__(self, config: ClassifierConfig, *, rngs: nnx.Rngs):
        encoder = config.encoder
        width = encoder.feature_width(encoder.num_layers)
        self.config = config
        self.encoder = encoder.make(rngs)
        self.norm = LayerNorm(width, encoder.epsilon, dtype=jnp.float32, rngs=rngs)
        if config.batch_norm:
            # Not `conv_norm.BatchNorm`: this one keeps the biased variance, which saved linear probes hold.
            self.batch_norm = nnx.BatchNorm(
                width,
                momentum=BATCH_NORM_MOMENTUM,
                epsilon=BATCH_NORM_EPSILON,
                use_bias=False,
                use_scale=False,
                use_fast_variance=False,
                rngs=rngs,
            )
        # torch's truncated normal cuts at +-2, where no draw of these widths ever comes: a plain normal is the same.
        kernel_init = nnx.initializers.normal(config.head_std)
        self.head = nnx.Linear(width, config.num_classes, kernel_init=kernel_init, rngs=rngs)

    def __call__(
        self, images: Float[Array, "b h w c"], key: PRNGKeyArray | None = None
    ) -> Float32[Array, "b {self.config.num_classes}"]:
        """Logits of the classes.

        Args:
            images: normalized by mean and standard deviation.
            key: draws the drop path and makes the batch norm use the batch's statistics; None evaluates.
        """
        x = self.features(images, key)
        with jax.named_scope("head"):
            if self.config.batch_norm:
                x = self.batch_norm(x, use_running_average=key is None)
            return self.head(x)

    def features(self, images: Float[Array, "b h w c"], key: PRNGKeyArray | None = None) -> Float32[Array, "b d"]:
        """The normalized and pooled feature."""
        config, prefix = self.config, self.config.encoder.num_prefix_tokens
        (x,) = self.encoder(images, taps=(config.encoder.num_layers,), key=key)
        with jax.named_scope("pool"):
            x = x[:, :1] if config.pool == "class" else x[:, prefix:]
            x = x.astype(jnp.float32)
            if config.head_order == "norm_pool":
                return self.norm(x).mean(axis=1)
            return self.norm(x.mean(axis=1))
