"""LocalMIM: several layers of an encoder, low to high, each reconstruct the masked image at their own scale.

"Masked Image Modeling with Local Multi-Scale Reconstruction", CVPR 2023; every constant is in docs/method.md.

A *tapped layer*, or tap, is a layer whose output is read by more than the next layer: in pre-training by a decoder, in
segmentation and detection by a feature pyramid (timm: out_indices). Layers count from 1: ViT's blocks, Swin's stages.
"""

import jax
from flax import nnx

from localmim_jax.method.config import LocalMIMConfig, scale_names
from localmim_jax.method.decoders import Decoder
from localmim_jax.method.fusion import Fusion
from localmim_jax.method.losses import multi_scale_loss
from localmim_jax.method.masking import check_num_masks, random_mask
from localmim_jax.method.targets import make_targets
from localmim_jax.models.mask import Mask
from localmim_jax.models.swin import Swin
from localmim_jax.models.vit import ViT, ViTConfig


class LocalMIM(nnx.Module):
    """An encoder and one decoder for each tapped layer. Only `encoder` is kept after pre-training."""

    def __init__(self, config: LocalMIMConfig, *, rngs: nnx.Rngs):
        self.config = config
        encoder = config.encoder
        self.encoder = ViT(encoder, rngs=rngs) if isinstance(encoder, ViTConfig) else Swin(encoder, rngs=rngs)
        self.decoders = nnx.List([Decoder(decoder, rngs=rngs) for decoder in config.decoders()])
        if config.fusion:
            self.fusion = Fusion(config.encoder, config.fusion, config.taps[0], rngs=rngs)

    def predict(self, images: jax.Array, mask: Mask) -> list[jax.Array]:
        """One prediction [b, cells, channels] for each tapped layer, for visible and masked cells alike."""
        config = self.config
        features = self.encoder(images, mask=mask, taps=config.fusion or config.taps)
        if config.fusion:
            features = (self.fusion(features),)
        return [decode(feature, mask) for decode, feature in zip(self.decoders, features, strict=True)]

    def features(self, images: jax.Array) -> jax.Array:
        """What k-NN and probes read: the mean of the last tap's normalized patch tokens, unmasked. [b, width]."""
        (feature,) = self.encoder(images, taps=self.config.taps[-1:])
        return self.decoders[-1].norm(feature)[:, self.encoder.num_prefix_tokens :].mean(axis=1)


def pretrain_loss(model: LocalMIM, images: jax.Array, mask: Mask) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The training objective: the masked error at every scale, summed.

    Args:
        model: the model.
        images: float32 [b, h, w, c], normalized by mean and standard deviation.
        mask: m masks, where m divides b; see `draw_mask`.

    Returns:
        The summed loss (float32 scalar), and {"loss": it, "loss/<cell>px": each scale's own}.
    """
    predictions = model.predict(images, mask)
    targets = make_targets(images, model.config.target)
    mask = mask.per_image(images.shape[0])
    weights = [mask.resized_to(decoder.config.target_grid) for decoder in model.decoders]
    loss, losses = multi_scale_loss(predictions, targets, weights)
    return loss, {"loss": loss} | dict(zip(scale_names(model.config), losses, strict=True))


def draw_mask(key: jax.Array, config: LocalMIMConfig, batch: int) -> Mask:
    """Random masks for a batch of images, at the config's ratio and in its number.

    Raises:
        ConfigError: the number of masks does not divide the batch.
    """
    num_masks = batch if config.num_masks is None else config.num_masks
    check_num_masks(num_masks, batch, 1)
    return random_mask(key, num_masks, config.encoder.mask_grid, config.mask_ratio)
