"""What recipes are added up from: an encoder and a task, as in `pretrain(vit("vit_b"))`.

`encoders` has the encoders, `common` the keys of every task, and `pretraining`, `classification`, `segmentation` and
`detection` have the rest. Every key of a config is declared there, so a typo on the command line is refused.

`placeholder(type)` is a value that is None until somebody sets it; the comment beside it says what None means.
"""

from localmim_jax.configs.parts.classification import classifier, finetune, labeled, linear_probe
from localmim_jax.configs.parts.common import IMAGENET_MEAN, IMAGENET_STD, run
from localmim_jax.configs.parts.detection import detect
from localmim_jax.configs.parts.encoders import swin, vit
from localmim_jax.configs.parts.pretraining import pretrain, reconstruct, reconstruction
from localmim_jax.configs.parts.segmentation import segment

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "classifier",
    "detect",
    "finetune",
    "labeled",
    "linear_probe",
    "pretrain",
    "reconstruct",
    "reconstruction",
    "run",
    "segment",
    "swin",
    "vit",
]
