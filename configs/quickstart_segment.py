r"""UperNet with the small ViT of quickstart_photos.py on parts of photographs: minutes on a CPU core.

    python main.py --config=configs/quickstart_segment.py --workdir=runs/quickstart_segment \
        --config.checkpoint.init_from=runs/quickstart_photos

Published: nothing. Expect: a higher validation/mIoU than from scratch, which is the same command without init_from (and
with another workdir). docs/segmentation.md has both curves.
The dataset is generated on first use from photographs in installed packages, in ADE20K's layout: 480 training images of
72 to 136 pixels and 80 evaluation images from other photographs; seven classes of tone and texture, whose masks are
computed from the photographs.
"""

from localmim_jax.configs.parts import segment

from localmim_jax.configs import quickstart


def get_config():
    config = segment(quickstart.encoder(drop_path=0.1))
    config.image_size = (64, 64)
    config.batch_size = 8
    config.num_steps = 600

    config.data.update({"name": "regions", "scale": (96, 96), "brightness": 8.0, "contrast": 0.1, "saturation": 0.1})
    config.data.hue = 6.0  # what the classes are told by may not change much

    config.model.update({"num_classes": 7, "channels": 32, "auxiliary_channels": 32})
    config.model.taps = (1, 2, 5, 6)
    config.optimizer.layer_decay = 0.75
    config.schedule.update({"peak_lr": 1e-3, "warmup_steps": 50})
    config.checkpoint.every_steps = 200
    config.log.every_steps = 50
    config.eval.update({"every_steps": 100, "num_pictures": 6, "batch_size": 8})
    config.eval.update({"scale": (96, 96), "stride": 43, "multiple": 32})
    return config
