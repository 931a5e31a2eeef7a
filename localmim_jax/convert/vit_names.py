"""Names of a ViT in files of the release, MAE, timm and Transformers. MAE fine-tunes under timm's names."""

import dataclasses
import re
from typing import ClassVar

import numpy as np

from localmim_jax.convert import derived, names, transformers_names
from localmim_jax.convert.interpolate import square_side
from localmim_jax.convert.naming import Arrays, Naming, Scheme, TimmModel, TransformersModel
from localmim_jax.convert.weights import Weights
from localmim_jax.errors import ConfigError
from localmim_jax.models.info import ModelInfo

ENCODER = (
    ("encoder/class_token", "cls_token", "token"),
    ("encoder/position_embedding", "pos_embed", "positions"),
    ("encoder/patch_embed/kernel", "patch_embed.proj.weight", "patch"),
    ("encoder/patch_embed/bias", "patch_embed.proj.bias", "same"),
    *((f"encoder/blocks/<i>/{ours}", f"blocks.<i>.{theirs}", layout) for ours, theirs, layout in names.BLOCK),
)

CLASSIFIER = (
    *ENCODER,
    ("norm/scale", "fc_norm.weight", "same"),
    ("norm/bias", "fc_norm.bias", "same"),
    ("head/kernel", "head.weight", "linear"),
    ("head/bias", "head.bias", "same"),
)


FEATURES = (  # a ViT without head; MAE's pre-training files, too, end in a norm
    *ENCODER,
    ("norm/scale", "norm.weight", "same"),
    ("norm/bias", "norm.bias", "same"),
)

CLASS_TOKEN = (  # global_pool="token"; the pooled one, global_pool="avg", is `CLASSIFIER`
    *FEATURES,
    ("head/kernel", "head.weight", "linear"),
    ("head/bias", "head.bias", "same"),
)

MAE_DECODER = r"mask_token|decoder_.*"

SEGMENTER = (
    *((ours, f"backbone.{theirs}", layout) for ours, theirs, layout in ENCODER),
    ("encoder/blocks/<i>/scale1", "backbone.blocks.<i>.gamma_1", "same"),
    ("encoder/blocks/<i>/scale2", "backbone.blocks.<i>.gamma_2", "same"),
    (
        "encoder/blocks/<i>/attention/relative_position_bias",
        "backbone.blocks.<i>.attn.relative_position_bias_table",
        "same",
    ),
    ("pyramid/up4_first/kernel", "backbone.fpn1.0.weight", "deconv"),
    ("pyramid/up4_first/bias", "backbone.fpn1.0.bias", "same"),
    *((f"pyramid/up4_norm/{a[5:]}", f"backbone.fpn1.1.{b[3:]}", layout) for a, b, layout in names.CONV_NORM[1:]),
    ("pyramid/up4_second/kernel", "backbone.fpn1.3.weight", "deconv"),
    ("pyramid/up4_second/bias", "backbone.fpn1.3.bias", "same"),
    ("pyramid/up2/kernel", "backbone.fpn2.0.weight", "deconv"),
    ("pyramid/up2/bias", "backbone.fpn2.0.bias", "same"),
    *names.SEGMENTATION_HEADS,
)

TRANSFORMERS = (
    *transformers_names.AROUND,
    ("encoder/class_token", "embeddings.cls_token", "token"),
    ("encoder/position_embedding", "embeddings.position_embeddings", "positions"),
    *transformers_names.block("encoder/blocks/<i>", "encoder.layer.<i>", "attention"),
)


def decoder(index: int, log2_scale: int) -> tuple[tuple[str, str, str], ...]:
    """The rules of one ViT decoder. In the release the numbering of `pred` depends on how the decoder rescales."""
    ours, theirs = f"decoders/{index}", f"decoder.{index}"
    rules = [
        (f"{ours}/norm/scale", f"norm.{index}.weight", "same"),
        (f"{ours}/norm/bias", f"norm.{index}.bias", "same"),
        (f"{ours}/embed/kernel", f"{theirs}.embed.weight", "linear"),
        (f"{ours}/embed/bias", f"{theirs}.embed.bias", "same"),
        (f"{ours}/mask_token", f"{theirs}.mask_token", "token"),
        *((f"{ours}/blocks/<j>/{a}", f"{theirs}.blocks.<j>.{b}", layout) for a, b, layout in names.BLOCK),
        (f"{ours}/out_norm/scale", f"{theirs}.norm.weight", "same"),
        (f"{ours}/out_norm/bias", f"{theirs}.norm.bias", "same"),
    ]
    position = 0
    for i in range(max(log2_scale, 0)):
        rules.append((f"{ours}/upsamples/{i}/kernel", f"{theirs}.pred.{position}.weight", "deconv"))
        rules.append((f"{ours}/upsamples/{i}/bias", f"{theirs}.pred.{position}.bias", "same"))
        if i + 1 < log2_scale:
            rules.append((f"{ours}/upsample_norms/{i}/scale", f"{theirs}.pred.{position + 1}.weight", "same"))
            rules.append((f"{ours}/upsample_norms/{i}/bias", f"{theirs}.pred.{position + 1}.bias", "same"))
            position += 3  # transposed convolution, norm, GELU
        else:
            position += 1
    position += log2_scale < 0  # a pooling layer comes first
    rules.append((f"{ours}/predict/kernel", f"{theirs}.pred.{position}.weight", "conv1x1"))
    rules.append((f"{ours}/predict/bias", f"{theirs}.pred.{position}.bias", "same"))
    return tuple(rules)


class ViTNaming(Naming):
    """The names of a ViT.

    Attributes:
        num_prefix_positions: rows of the position table that belong to no patch.
    """

    encoder = ENCODER
    num_prefix_positions: ClassVar[int] = 1

    def recognize(self, arrays: Arrays, origin: str) -> Scheme | None:
        """The release's pre-training names; timm's, as MAE and the release's fine-tuned models have; Transformers'."""
        if (theirs := transformers_names.joined(arrays)) is not None:
            return _transformers(theirs) if "embeddings.cls_token" in theirs else None
        rearranged = _rearranged(arrays)
        scheme = self._recognize(rearranged, origin)
        return scheme if scheme is None or rearranged is arrays else dataclasses.replace(scheme, arrays=rearranged)

    def _recognize(self, arrays: Arrays, origin: str) -> Scheme | None:
        if "cls_token" not in arrays or not any(name.startswith("blocks.") for name in arrays):
            return None
        size = _image_size(arrays, self.num_prefix_positions)
        if any(name.startswith("decoder.") for name in arrays):
            return _release_pretraining(arrays, size, origin)
        if "head.weight" not in arrays and "fc_norm.weight" in arrays:
            return Scheme(ModelInfo("vit", "encoder", size, pool="mean", head_order="pool_norm"), CLASSIFIER)
        if "head.weight" not in arrays:
            return Scheme(ModelInfo("vit", "encoder", size), FEATURES, ((MAE_DECODER, "MAE's decoder", None),))
        if "fc_norm.weight" in arrays:
            return Scheme(ModelInfo("vit", "classifier", size, pool="mean", head_order="pool_norm"), CLASSIFIER)
        return Scheme(ModelInfo("vit", "classifier", size, pool="class", head_order="pool_norm"), CLASS_TOKEN)

    def release(self, weights: Weights) -> dict[str, np.ndarray]:
        """A pre-training model with its fixed arrays, or what timm calls the same."""
        info, arrays = weights.info, weights.arrays
        if info.kind != "pretrain":
            return names.rename(weights.origin, arrays, self.rules(weights), "the release")
        scales = info.log2_scale or ()
        rules = [*ENCODER, *(rule for k, log2_scale in enumerate(scales) for rule in decoder(k, log2_scale))]
        return names.rename(weights.origin, arrays, rules, "the release") | derived.of_pretraining(info, arrays)

    def timm(self, weights: Weights) -> dict[str, np.ndarray]:
        """timm's VisionTransformer."""
        return names.rename(weights.origin, weights.arrays, self.rules(weights), "timm's ViT")

    def timm_model(self, weights: Weights) -> TimmModel:
        """timm's VisionTransformer, which can normalize before or after it pools."""
        info, arrays = weights.info, weights.arrays
        width, hidden = arrays["encoder/blocks/0/mlp/fc1/kernel"].shape
        (heads,) = info.num_heads or ()
        pooled = info.pool == "mean" and info.head_order == "pool_norm"
        settings = {
            "embed_dim": width,
            "depth": names.count(arrays, r"encoder/blocks/(\d+)/.*"),
            "num_heads": heads,
            "mlp_ratio": hidden / width,
            "class_token": True,
            "global_pool": "token" if info.pool == "class" else "avg",
            "fc_norm": pooled,
        }
        rules = [*self.rules(dataclasses.replace(weights, info=dataclasses.replace(info, kind="encoder")))]
        rules += [rule for rule in CLASSIFIER if rule[0].startswith("head/")]
        renamed = names.rename(weights.origin, arrays, rules, "timm's ViT")
        return TimmModel(_architecture(width), renamed, settings, width, "head")

    def transformers(self, weights: Weights) -> TransformersModel:
        """Transformers' ViT, whose head reads the class token."""
        info, arrays = weights.info, weights.arrays
        if info.kind == "classifier" and info.pool != "class":
            raise ConfigError(
                f"{weights.origin}: its head reads the mean of the patch tokens (model.pool='mean'), where "
                "Transformers' ViT reads the class token: the same weights would give other logits there. Export the "
                "encoder alone (--part=encoder), or fine-tune with model.pool=class"
            )
        width, hidden = arrays["encoder/blocks/0/mlp/fc1/kernel"].shape
        (heads,) = info.num_heads or ()
        settings = {
            "hidden_size": width,
            "num_hidden_layers": len({path.split("/")[2] for path in arrays if path.startswith("encoder/blocks/")}),
            "num_attention_heads": heads,
            "intermediate_size": hidden,
            "encoder_stride": arrays["encoder/patch_embed/kernel"].shape[0],
        }
        return TransformersModel("ViT", TRANSFORMERS, settings)

    def rules(self, weights: Weights) -> names.Rules:
        """timm's names of an encoder or a classifier. Raises ConfigError: its head cannot be expressed there."""
        info = weights.info
        if info.kind != "classifier":
            return CLASSIFIER if info.pool == "mean" and info.head_order == "pool_norm" else FEATURES
        if info.pool == "class":  # one token: normalized before or after is the same
            return CLASS_TOKEN
        if info.head_order == "norm_pool":
            raise ConfigError(
                f"{weights.origin}: its head normalizes before it pools (head_order='norm_pool'), where the release's "
                "and timm's ViT pool first: the same weights would give other logits there. Export the encoder alone"
            )
        return CLASSIFIER


NAMING = ViTNaming()


def _architecture(width: int) -> str:
    """timm's ViT of this width, or any."""
    sizes = {192: "tiny", 384: "small", 768: "base", 1024: "large"}
    return f"vit_{sizes.get(width, 'base')}_patch16_224"


def _transformers(arrays: Arrays) -> Scheme:
    """Transformers' ViT, or the encoder of its ViTMAE."""
    positions, kernel = arrays.get("embeddings.position_embeddings"), arrays[transformers_names.ANCHOR]
    size = _grid_image_size(positions, kernel, 1)
    rules = (*TRANSFORMERS, *transformers_names.HEAD)
    info = ModelInfo("vit", "encoder", size)
    if "classifier.weight" in arrays:
        info = ModelInfo("vit", "classifier", size, pool="class", head_order="pool_norm")
    return Scheme(info, rules, transformers_names.BESIDE, arrays)


def _rearranged(arrays: Arrays) -> Arrays:
    """timm's other forms of prefix tokens in the forms that are known here; each computes the same.

    Without a class token (class_token=False), the first register is one, which nobody has to read. Positions of prefix
    tokens are added to registers. A class token without a position (no_embed_class=True) has one of zeros in a ViT
    without registers.
    """
    positions, registers = arrays.get("pos_embed"), arrays.get("reg_token")
    if positions is None or positions.ndim != 3 or (registers is not None and registers.ndim != 3):
        return arrays
    changed = dict(arrays)
    count = positions.shape[1]
    if registers is not None:
        num_prefix = registers.shape[1] + ("cls_token" in arrays)
        if not square_side(count) and square_side(count - num_prefix):
            own = positions[:, :num_prefix]
            changed["pos_embed"] = positions = positions[:, num_prefix:]
            if "cls_token" in arrays:
                changed["cls_token"] = arrays["cls_token"] + own[:, :1]
            registers = registers + own[:, "cls_token" in arrays :]
        if "cls_token" not in arrays:
            changed["cls_token"], registers = registers[:, :1], registers[:, 1:]
        changed["reg_token"] = registers
        if registers.shape[1]:
            return changed
        del changed["reg_token"]
    count = positions.shape[1]
    if "cls_token" in changed and square_side(count) and not square_side(count - 1):
        zeros = np.zeros((1, 1, positions.shape[2]), positions.dtype)
        changed["pos_embed"] = np.concatenate([zeros, positions], axis=1)
        return changed
    return arrays


def _release_pretraining(arrays: Arrays, size: tuple[int, int] | None, origin: str) -> Scheme:
    scales = tuple(_decoder_log2_scale(arrays, k) for k in range(names.count(arrays, r"decoder\.(\d+)\..*")))
    decoders = [rule for k, log2_scale in enumerate(scales) for rule in decoder(k, log2_scale)]
    depth = names.count(arrays, r"blocks\.(\d+)\..*")
    taps = (2, 4, depth - 2, depth) if len(scales) == 4 else None
    target = derived.target_of(arrays, origin)
    info = ModelInfo("vit", "pretrain", size, taps=taps, log2_scale=scales, **target)
    return Scheme(info, (*ENCODER, *decoders), derived.DERIVED)


def _decoder_log2_scale(arrays: Arrays, index: int) -> int:
    """log2 of a release ViT decoder's rescaling: a doubling is a transposed convolution, a pooling shifts `pred`."""
    doublings = sum(
        re.fullmatch(rf"decoder\.{index}\.pred\.\d+\.weight", name) is not None and array.shape[2:] == (2, 2)
        for name, array in arrays.items()
    )
    return doublings or (0 if f"decoder.{index}.pred.0.weight" in arrays else -1)


def _image_size(arrays: Arrays, num_prefix_positions: int) -> tuple[int, int] | None:
    return _grid_image_size(arrays.get("pos_embed"), arrays.get("patch_embed.proj.weight"), num_prefix_positions)


def _grid_image_size(
    positions: np.ndarray | None, kernel: np.ndarray | None, num_prefix_positions: int
) -> tuple[int, int] | None:
    if positions is None or kernel is None or positions.ndim != 3 or kernel.ndim != 4:
        return None
    side = square_side(positions.shape[1] - num_prefix_positions)
    return (side * kernel.shape[2], side * kernel.shape[3]) if side else None
