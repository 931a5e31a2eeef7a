r"""Fine-tuning of any run on your own labeled images, from hundreds to tens of thousands.

    python main.py --config=configs/finetune.py --workdir=runs/finetune --config.checkpoint.init_from=runs/pretrain \
        --config.data.name=folder:/data/flowers --config.model.num_classes=17

Published: nothing. The model, the image size, the normalization and the flips are taken from the run in
checkpoint.init_from. For a file of weights without a run, use the recipe of its model, such as
vit_b_100ep_finetune.py. docs/finetuning.md has learning rates and epochs for 90 and 2000 photographs. To train only the
last four blocks: --config.model.trained_blocks=4
"""

from localmim_jax.configs.parts import finetune, swin, vit
from localmim_jax.configs.parts.encoders import is_swin


def get_config(pretrained=None):
    """`pretrained` is the config of the run that checkpoint.init_from names; None stands for a ViT-B."""
    encoder = vit("vit_b") if pretrained is None else encoder_of(pretrained.model)
    encoder.drop_path = 0.1
    config = finetune(encoder)
    config.batch_size = 32
    config.num_epochs = 100.0
    config.augment.update({"randaugment": "", "erasing": 0.0, "mixup": 0.0, "cutmix": 0.0})
    config.optimizer.layer_decay = 0.9 if is_swin(encoder) else 0.75
    config.schedule.update({"peak_lr": 1e-3, "min_lr": 1e-6, "warmup_epochs": 10.0})
    if pretrained is not None:
        config.model.epsilon = pretrained.model.get("epsilon")
        config.image_size = tuple(pretrained.image_size)
        for key in ("channels", "mean", "std", "flip", "vertical_flip", "rotate90", "high_bit_depth"):
            if key in pretrained.data:
                config.data[key] = _plain(pretrained.data[key])
    return config


def encoder_of(model):
    """The keys of an encoder with a run's values; a key that the run lacks keeps its own."""
    encoder = swin(model.variant) if is_swin(model) else vit(model.variant)
    for key in encoder:
        if model.get(key) is not None:
            encoder[key] = _plain(model[key])
    return encoder


def _plain(value):
    return tuple(value) if isinstance(value, (list, tuple)) else value
