"""Ablations of the method, one sweep per design choice: ViT-B, 100 epochs of ImageNet-1K.

    python main.py --config=configs/ablations.py:mask_ratio=0.6 --workdir=runs/ablations/mask_ratio=0.6
    localmim tables ablations

The second command lists all runs with their fine-tuning. Published: nothing in the supplement; the ablations are in the
main text, which we do not have. The values below are ours. Everything else is as in vit_b_100ep.py.
"""

from localmim_jax.configs import vit_b_100ep

# axis: {value: overrides}. Each sweep has the paper's own setting in it.
AXES = {
    "taps": {
        "12": {"model.taps": (12,), "model.target.cells": (16,)},
        "10-12": {"model.taps": (10, 12), "model.target.cells": (16, 32)},
        "4-10-12": {"model.taps": (4, 10, 12), "model.target.cells": (8, 16, 32)},
        "2-4-10-12": {"model.taps": (2, 4, 10, 12), "model.target.cells": (4, 8, 16, 32)},
        "3-6-9-12": {"model.taps": (3, 6, 9, 12), "model.target.cells": (4, 8, 16, 32)},
        "1-2-11-12": {"model.taps": (1, 2, 11, 12), "model.target.cells": (4, 8, 16, 32)},
    },
    "scales": {
        "-".join(map(str, cells)): {"model.taps": (2, 4, 10, 12), "model.target.cells": cells}
        for cells in ((16, 16, 16, 16), (8, 8, 16, 16), (4, 8, 16, 32), (4, 4, 8, 8), (32, 16, 8, 4))
    },
    "target": {
        "hog9": {"model.target.bins": 9},
        "hog18": {"model.target.bins": 18},
        "hog36": {"model.target.bins": 36},
        "pixels": {"model.target.kind": "pixels"},
    },
    "decoder_depth": {str(depth): {"model.decoder.depth": depth} for depth in (1, 2, 4)},
    "decoder_width": {str(width): {"model.decoder.width": width} for width in (128, 256, 512)},
    "mask_ratio": {str(ratio): {"model.mask_ratio": ratio} for ratio in (0.4, 0.6, 0.75, 0.9)},
}


def sweep():
    """The arguments of `get_config`, one a run."""
    return ablations()


def ablations():
    """All runs, axis by axis."""
    return [f"{axis}={value}" for axis, values in AXES.items() for value in values]


def get_config(run="mask_ratio=0.75"):
    axis, _, value = run.partition("=")
    config = vit_b_100ep.get_config()
    config.update_from_flattened_dict(AXES[axis][value])
    return config
