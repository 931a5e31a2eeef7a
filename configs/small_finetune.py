"""Fine-tuning of the models of small.py on 300 labeled digits: a minute or two on two CPU cores.

    python main.py --config=configs/small_finetune.py:vit --workdir=runs/small/vit_local_multi_finetune \
        --config.checkpoint.init_from=runs/small/vit_local_multi

Published: nothing. See small.py.
"""

from localmim_jax.configs.parts import classifier

from localmim_jax.configs import quickstart_finetune, small


def sweep():
    """The arguments of `get_config`."""
    return ["vit", "swin"]


def get_config(backbone="vit"):
    config = quickstart_finetune.get_config()
    config.model = classifier(small.encoder(backbone, drop_path=0.1))
    config.model.num_classes = 10
    config.data.split = "train[:300]"
    config.num_epochs = 40.0
    config.schedule.warmup_epochs = 4.0
    return config
