"""Object detection and instance segmentation: Mask R-CNN on COCO."""

from localmim_jax.configs.parts.common import images, run
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def detect(encoder: ConfigDict) -> ConfigDict:
    """Mask R-CNN on COCO for 36 epochs (Swin's 3x recipe), as in the supplement."""
    # image_size: of a padded landscape image; portrait images use it transposed
    config = run("detect", image_size=(800, 1344), batch_size=16, num_epochs=36.0)
    config.data = _coco()
    config.model = _detector(encoder)
    config.schedule.update({"kind": "steps", "peak_lr": 1e-4, "warmup_steps": 1000, "warmup_lr": 1e-7})
    config.schedule.milestone_epochs = (27.0, 33.0)  # where the rate falls to a tenth
    config.schedule.milestones = placeholder(tuple)  # steps; they win when set
    config.eval = ConfigDict({"split": "val2017", "every_epochs": 3.0, "short_side": 800, "long_side": 1333})
    config.eval.num_pictures = 8
    return config


def _detector(encoder: ConfigDict) -> ConfigDict:
    model = encoder
    model.update({"num_classes": 80, "channels": 256, "box_head_width": 1024, "mask_convs": 4, "anchor_scale": 8.0})
    model.update({"rpn_samples": 256, "roi_samples": 512})  # anchors and regions of an image that the losses look at
    model.update({"pre_nms_top_n": 2000, "pre_nms_top_n_test": 1000})  # proposals of each level before NMS: train, test
    model.update({"post_nms_top_n": 1000, "detections": 100})  # maximum per image: proposals after NMS, detections
    model.score_threshold = 0.05  # minimum score of a detection
    model.sampling_ratio = 0  # RoIAlign samples along a side of a bin; 0: one per cell, rounded up
    return model


def _coco() -> ConfigDict:
    """COCO 2017, or any dataset in its format, with the multi-scale training of Swin's recipe."""
    # A folder with annotations/instances_<split>.json and <split>/; or "shapes", "fake".
    data = images("coco:data/coco", "train2017", 117266)
    data.skip_empty = True  # training images without a usable object
    data.short_sides = tuple(range(480, 801, 32))  # pixels, one is drawn
    data.long_side = 1333  # at most
    data.crop_probability = 0.5  # of resizing to one of crop_sides and cropping first
    data.crop_sides = (400, 500, 600)
    data.crop_range = (384, 600)  # of a crop's height and width
    data.mask_size = 112  # cells along a side of a ground-truth mask over its box
    data.fake_objects = 100  # places for objects in each fake image; COCO's fullest images have nearly as many
    return data
