r"""Does local multi-scale reconstruction help outside the paper? Small models, 60,000 photographs of clothing.

    python main.py --config=configs/study.py:vit_hog_local_multi --workdir=runs/study/vit_hog_local_multi
    localmim study

The second lists every run of the study; docs/evidence.md has the results. Published: nothing at this scale.

A run is named BACKBONE_TARGET_METHOD. `pixels_global_single` reconstructs what MAE does, `hog_global_single` what
MaskFeat does, `hog_local_multi` and `pixels_local_multi` are LocalMIM, and the eight runs with HOG are Table 1's. All
have one code, one schedule and one kind of decoder, so that they differ in what the paper compares and in nothing else.

Fashion-MNIST's images of 28 x 28 pixels are enlarged to 64 x 64: a grid of 8 x 8 patches of 8 px, and cells of 2, 4, 8
and 16 px, the paper's ratios to the patch. (At 32 x 32 pixels the finest cell would be one pixel, which has no
histogram.) ViT's taps 1, 2, 5, 6 are ViT-B's 2, 4, 10, 12 at half the depth.
"""

from localmim_jax.configs.parts import reconstruct, reconstruction

from localmim_jax.configs import fashion_mnist, quickstart, quickstart_swin

TARGETS = ("hog", "pixels")
METHODS = ("global_single", "global_multi", "local_single", "local_multi")
LAYERS = {
    "vit": {"taps": (1, 2, 5, 6), "cells": (2, 4, 8, 16), "native": 8},
    "swin": {"taps": (1, 2, 3), "cells": (4, 8, 16), "native": 16},
}


def sweep():
    """The arguments of `get_config`, one a run."""
    return [f"{backbone}_{target}_{method}" for backbone in LAYERS for target in TARGETS for method in METHODS]


def encoder(backbone, **changes):
    """The encoder of every run, "vit" or "swin"."""
    if backbone == "vit":
        return quickstart.encoder(width=64, num_heads=2, **changes)
    return quickstart_swin.encoder(patch_size=4, width=24, num_heads=(1, 2, 4), **changes)


def get_config(run="vit_hog_local_multi"):
    backbone, target, method = run.split("_", 2)
    config = fashion_mnist.get_config()
    config.batch_size = 32
    config.num_epochs = 1.0
    config.schedule.update({"base_lr": 8e-3, "warmup_epochs": 0.1})
    config.model = reconstruction(encoder(backbone))
    config.model.target.update({"kind": target, "bins": 9})
    config.model.decoder.num_heads = 2
    reconstruct(config, method, **LAYERS[backbone])
    if backbone == "vit":
        config.model.decoder.width = 32
    else:
        config.model.decoder.width = (32,) * len(config.model.taps)
        config.model.update({"mask_ratio": 0.5, "num_masks": 32})  # of 16 mask units, 4 would be too few
    config.checkpoint.every_epochs = 0.1
    config.eval.knn.enabled = False  # localmim study evaluates
    config.eval.rank.num_images = config.eval.reconstruction.num_images = 0
    return config
