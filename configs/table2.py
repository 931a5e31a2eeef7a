"""Table 2 of the supplement: global reconstruction, with feature fusion, and local; ViT-B and Swin-B, 100 epochs.

    python main.py --config=configs/table2.py:vit_b_global_fusion --workdir=runs/table2/vit_b_global_fusion
    localmim tables table2

The second command lists all six runs with their fine-tuning. Published: ImageNet-1K top-1 after fine-tuning, in %,

    vit_b_global_single   83.0      swin_b_global_single  83.3
    vit_b_global_fusion   83.0      swin_b_global_fusion  83.5
    vit_b_local_multi     83.3      swin_b_local_multi    83.8

All runs except the two with fusion also belong to Table 1. The paper does not describe its fusion; ours is in
localmim_jax/method/fusion.py.
"""

from localmim_jax.configs import table1

METHODS = ("global_single", "global_fusion", "local_multi")


def sweep():
    """The arguments of `get_config`, one a run."""
    return [f"{backbone}_{method}" for backbone in ("vit_b", "swin_b") for method in METHODS]


def get_config(run="vit_b_global_fusion"):
    return table1.make(run)
