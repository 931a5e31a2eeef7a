"""Mask R-CNN with a small Swin, from scratch, on shapes pasted on photographs: half an hour on one CPU core.

    python main.py --config=configs/quickstart_detect.py --workdir=runs/quickstart_detect

Published: nothing. Expect: box and mask AP50 on held-out images (val/box/AP50, val/mask/AP50). From a real
run: 0.44 and 0.41 after 5 epochs, 0.61 and 0.56 after 10, 0.75 and 0.72 after 15, 0.77 and 0.73 at the end.
The dataset is generated on first use from photographs in installed packages, in COCO's format, with exact masks: 1200
training images of 96 x 128 pixels and 150 evaluation images from other photographs; five classes of different outline.
"""

from localmim_jax.configs.parts import detect, swin


def get_config():
    config = detect(swin("swin_t"))
    config.image_size = (96, 128)
    config.batch_size = 8
    config.num_epochs = 20.0

    config.data.update({"name": "shapes", "split": "train", "long_side": 128, "mask_size": 56})
    config.data.update({"short_sides": (80, 88, 96), "crop_sides": (96, 112), "crop_range": (64, 112)})

    config.model.update({"width": 32, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8), "window": 4, "drop_path": 0.0})
    config.model.update({"dtype": "float32", "num_classes": 5, "anchor_scale": 6.0})
    config.model.update({"channels": 32, "box_head_width": 128, "mask_convs": 2, "rpn_samples": 64, "roi_samples": 32})
    config.model.update({"pre_nms_top_n": 64, "pre_nms_top_n_test": 64, "post_nms_top_n": 64, "detections": 20})

    config.optimizer.clip_norm = 5.0
    config.schedule.update({"peak_lr": 1e-3, "warmup_lr": 0.0, "warmup_steps": 200})
    config.schedule.milestone_epochs = (15.0, 18.0)
    config.checkpoint.every_epochs = 5.0
    config.log.every_steps = 50
    config.eval.update({"split": "val", "every_epochs": 5.0, "short_side": 96, "long_side": 128, "num_pictures": 12})
    return config
