"""Every method of Tables 1 and 2 and every ablation with small models on digits, in minutes on two CPU cores.

    python main.py --config=configs/small.py:vit_global_multi --workdir=runs/small/vit_global_multi
    localmim tables table1 --scale=small --run

Published: nothing. These runs test the whole path, from pre-training through fine-tuning to the tables and figures.
They say nothing about which method is better.
"""

from localmim_jax.configs.parts import reconstruct, reconstruction

from localmim_jax.configs import quickstart, quickstart_swin

METHODS = ("global_single", "global_multi", "local_single", "local_multi", "global_fusion")
AXES = {
    "taps": {
        "4": {"model.taps": (4,), "model.target.cells": (8,)},
        "2-4": {"model.taps": (2, 4), "model.target.cells": (4, 8)},
        "1-2-3-4": {"model.taps": (1, 2, 3, 4), "model.target.cells": (2, 4, 8, 16)},
    },
    "scales": {
        "8-8-8-8": {"model.target.cells": (8, 8, 8, 8)},
        "2-4-8-16": {"model.target.cells": (2, 4, 8, 16)},
        "16-8-4-2": {"model.target.cells": (16, 8, 4, 2)},
    },
    "target": {"hog9": {"model.target.bins": 9}, "hog18": {}, "pixels": {"model.target.kind": "pixels"}},
    "decoder_depth": {str(depth): {"model.decoder.depth": depth} for depth in (1, 2)},
    "decoder_width": {str(width): {"model.decoder.width": width} for width in (16, 32)},
    "mask_ratio": {str(ratio): {"model.mask_ratio": ratio} for ratio in (0.5, 0.75)},
}


def sweep():
    """The arguments of `get_config`, one a run."""
    methods = [f"{backbone}_{method}" for backbone in ("vit", "swin") for method in METHODS]
    return methods + [f"vit_{run}" for run in ablations()]


def ablations():
    """The runs of the ablations, as configs/ablations.py names them."""
    return [f"{axis}={value}" for axis, values in AXES.items() for value in values]


def encoder(backbone, **changes):
    """The encoder of every run, "vit" or "swin"."""
    if backbone == "vit":
        return quickstart.encoder(width=64, depth=4, **changes)
    return quickstart_swin.encoder(width=16, depths=(2, 1, 1), **changes)


def get_config(run="vit_local_multi"):
    backbone, _, method = run.partition("_")
    config = pretraining(backbone)
    if backbone == "vit":
        layers = {"taps": (1, 2, 3, 4), "cells": (2, 4, 8, 16), "native": 8}
    else:
        layers = {"taps": (1, 2, 3), "cells": (4, 8, 8), "native": 8}
    if "=" not in method:
        return reconstruct(config, method, **layers)
    axis, _, value = method.partition("=")
    reconstruct(config, "local_multi", **layers)
    config.update_from_flattened_dict(AXES[axis][value])
    return config


def pretraining(backbone):
    """What every run of a backbone has in common."""
    config = (quickstart if backbone == "vit" else quickstart_swin).get_config()
    config.batch_size = 50
    config.num_epochs = 24.0
    config.schedule.base_lr = 1.6e-2
    config.schedule.warmup_epochs = 4.0
    config.checkpoint.every_epochs = 12.0
    config.checkpoint.keep_every_steps = 360  # the middle epoch's, for Figure 1
    config.log.every_steps = 60
    config.eval.knn.update({"raw_pixels": False, "every_epochs": 4.0, "max_train": 500})
    config.eval.reconstruction.num_images = config.eval.rank.num_images = 0
    config.model = reconstruction(encoder(backbone))
    if backbone == "vit":
        config.model.decoder.update({"width": 32, "num_heads": 4})
    else:
        config.model.update({"mask_ratio": 0.5, "num_masks": 10})  # of 16 mask units
    return config
