"""Semantic segmentation: UperNet on ADE20K."""

from localmim_jax.configs.parts.common import add_layer_decay, images, run
from localmim_jax.configs.parts.encoders import is_swin
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def segment(encoder: ConfigDict) -> ConfigDict:
    """UperNet on ADE20K for 160 K steps, as in the supplement; the recipe sets rates, decay and drop path."""
    config = run("segment", image_size=(512, 512), batch_size=16)  # image_size: of a training crop, and a ViT's window
    config.num_steps = 160000
    config.data = _ade20k()
    config.model = _segmenter(encoder)
    add_layer_decay(config)
    config.schedule.update({"kind": "linear", "warmup_steps": 1500})
    config.checkpoint.update({"every_steps": 8000, "every_epochs": 0.0})
    config.eval = ConfigDict({"split": "validation", "every_steps": 16000, "num_pictures": 8})
    config.eval.batch_size = 16  # global; whole images need more memory than crops
    config.eval.mode = "whole" if is_swin(encoder) else "slide"  # the whole image at once, or windows of image_size
    config.eval.stride = 341  # pixels from one window to the next
    config.eval.scale = (2048, 512)  # (long side, short side) that images are resized to, their ratio kept
    config.eval.multiple = 32  # sides are rounded to multiples of this: few shapes to compile; 1 keeps ratios exactly
    config.eval.ratios = (1.0,)  # of scale; several are averaged: (0.5, 0.75, 1.0, 1.25, 1.5, 1.75) is usual
    config.eval.flip = False  # average with the mirror image
    config.eval.write_masks = False  # predictions as indexed PNGs in WORKDIR/masks
    return config


def _segmenter(encoder: ConfigDict) -> ConfigDict:
    model = encoder
    if not is_swin(encoder):
        model.relative_and_scale = True  # relative position bias and layer scale, the release's; False: a plain ViT
    model.taps = placeholder(tuple)  # four layers, counted from 1; None: the paper's
    model.num_classes = 150
    model.channels = 512 if is_swin(encoder) else 768  # of UperNet
    model.auxiliary_channels = 256  # of the FCN head on the map of stride 16; 0: no such head
    model.auxiliary_weight = 0.4  # of its loss
    model.pool_scales = (1, 2, 3, 6)
    model.dropout = 0.1  # of channels before each classifier
    return model


def _ade20k() -> ConfigDict:
    """ADE20K, or any images with index masks, with OpenMMLab's augmentation."""
    # A folder with images/<split>, annotations/<split> and a class list; or "tfds:<name>", "regions", "fake".
    data = images("masks:data/ADEChallengeData2016", "training", 20210)
    data.zero_ignored = True  # 0 in a mask is no class, and 1 the first; False: 0 is the first. 255 is never a class
    data.mask_values = placeholder(tuple)  # each class's value in a mask; None: in a row; (0, 255) for binary masks
    data.scale = (2048, 512)  # (long side, short side) that images are resized to, times a factor, their ratio kept
    data.ratio_range = (0.5, 2.0)  # of that factor
    data.max_class_fraction = 0.75  # of one class in a crop, up to ten tries; 1 accepts any crop
    data.brightness = 32.0  # of 255, at most; here and below 0 turns it off
    data.contrast = 0.5  # factors of 1 - this to 1 + this
    data.saturation = 0.5
    data.hue = 36.0  # degrees, at most
    return data
