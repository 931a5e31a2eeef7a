r"""ViT-S/16 on Imagenette, 200 epochs: LocalMIM beside published results of MAE, MaskFeat and SimMIM on the same data.

    python main.py --config=configs/imagenette.py:hog_local_multi --workdir=runs/imagenette/hog_local_multi
    localmim knn --checkpoint=runs/imagenette/hog_local_multi --data=tfds:imagenette/320px-v2
    localmim probe --checkpoint=runs/imagenette/hog_local_multi --data=tfds:imagenette/320px-v2

`localmim prepare --name=tfds:imagenette/320px-v2` downloads it: 9,469 photographs of ten classes of ImageNet, and 3,925
to test. Runs are named TARGET_METHOD as in study.py.

Published: nothing for LocalMIM. Top-1 in %, k-NN / linear, by stable-pretraining (ViT-S/16, 200 epochs):
    MAE 72.1 / 84.1      MaskFeat 27.8 / 25.6      SimMIM 30.9 / 22.5
Not run by us. Planned cost: 22 PFLOP of the model (11.5 GFLOP an image; 7.9 for global_single). At the FLOP/s that
ViT-B reaches on one H200 (docs/benchmarks.md) this is two minutes, so reading images decides. For other hardware:
localmim plan --config=configs/imagenette.py:hog_local_multi
"""

from localmim_jax.configs.parts import pretrain, reconstruct, vit

from localmim_jax.configs import study


def sweep():
    """The arguments of `get_config`, one a run."""
    return [f"{target}_{method}" for target in study.TARGETS for method in ("global_single", "local_multi")]


def get_config(run="hog_local_multi"):
    target, method = run.split("_", 1)
    config = pretrain(vit("vit_s"))
    config.batch_size = 256
    config.num_epochs = 200.0
    config.data.name = config.eval.knn.name = "tfds:imagenette/320px-v2"
    config.model.target.kind = target
    config.schedule.update({"base_lr": 5e-4, "warmup_epochs": 20.0})
    config.checkpoint.every_epochs = 20.0
    config.eval.knn.update({"enabled": True, "every_epochs": 20.0})
    return reconstruct(config, method, taps=(2, 4, 10, 12), cells=(4, 8, 16, 32), native=16)
