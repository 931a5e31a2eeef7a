"""Table 1 of the supplement: {global, local} x {single-scale, multi-scale}, ViT-B and Swin-B, 100 epochs, ImageNet-1K.

    python main.py --config=configs/table1.py:vit_b_global_multi --workdir=runs/table1/vit_b_global_multi
    localmim tables table1

The second command lists all eight runs with their fine-tuning. Published: ImageNet-1K top-1 after fine-tuning, in %,

    vit_b_global_single   83.0      swin_b_global_single  83.3
    vit_b_global_multi    82.8      swin_b_global_multi   82.9
    vit_b_local_single    83.0      swin_b_local_single   83.6
    vit_b_local_multi     83.3      swin_b_local_multi    83.8

Everything except the reconstruction is as in vit_b_100ep.py and swin_b_hog_100ep.py, whose method is local_multi.
Fine-tune with vit_b_100ep_finetune.py and swin_b_hog_100ep_finetune.py. The checkpoint of the middle epoch, 50, is kept
for Figure 1. For the convergence figure, k-NN accuracy is logged every ten epochs, with a tenth of the training set as
memory bank (--config.eval.knn.enabled=false turns it off).
"""

from localmim_jax.configs.parts import reconstruct

from localmim_jax.configs import swin_b_hog_100ep, vit_b_100ep

MIDDLE = 31300  # step at the end of epoch 50 of 100; saves are 626 steps apart
METHODS = ("global_single", "global_multi", "local_single", "local_multi")


def sweep():
    """The arguments of `get_config`, one a run."""
    return [f"{backbone}_{method}" for backbone in ("vit_b", "swin_b") for method in METHODS]


def get_config(run="vit_b_local_multi"):
    return make(run)


def make(run):
    """The config of a backbone and method, fusion included, as in "swin_b_global_fusion"."""
    if run.startswith("vit_b_"):
        config = vit_b_100ep.get_config()
        reconstruct(config, run.removeprefix("vit_b_"), taps=(2, 4, 10, 12), cells=(4, 8, 16, 32), native=16)
    else:
        config = swin_b_hog_100ep.get_config()
        reconstruct(config, run.removeprefix("swin_b_"), taps=(1, 2, 3, 4), cells=(8, 16, 32, 32), native=32)
    config.checkpoint.keep_every_steps = MIDDLE
    config.eval.knn.update({"enabled": True, "every_epochs": 10.0, "max_train": 128117})
    return config
