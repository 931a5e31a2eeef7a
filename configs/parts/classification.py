"""Fine-tuning and linear probing on ImageNet-1K."""

from localmim_jax.configs.parts.common import add_layer_decay, imagenet, run
from localmim_jax.configs.parts.encoders import add_epsilon
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def finetune(encoder: ConfigDict) -> ConfigDict:
    """Fine-tuning as in the supplement's Table 4; the recipe sets rates, layer decay and drop path."""
    config = _classification("finetune", encoder, batch_size=1024, num_epochs=100.0)
    config.augment.update({"randaugment": "rand-m9-mstd0.5-inc1", "erasing": 0.25})
    config.augment.update({"mixup": 0.8, "cutmix": 1.0, "label_smoothing": 0.1})
    config.schedule.warmup_epochs = 20.0
    return config


def linear_probe(encoder: ConfigDict) -> ConfigDict:
    """A linear classifier on the frozen encoder, by MAE's protocol: LARS, a batch norm without scale and bias."""
    config = _classification("linear_probe", encoder, batch_size=16384, num_epochs=90.0)
    config.model.update({"batch_norm": True, "head_order": "norm_pool", "head_std": 0.01})
    config.optimizer.update({"name": "lars", "momentum": 0.9, "weight_decay": 0.0})
    config.schedule.update({"base_lr": 0.1, "warmup_epochs": 10.0})
    return config


def _classification(task: str, encoder: ConfigDict, batch_size: int, num_epochs: float) -> ConfigDict:
    config = run(task, image_size=(224, 224), batch_size=batch_size, num_epochs=num_epochs)
    config.data = labeled(imagenet())
    config.data.crop_scale = (0.08, 1.0)
    config.augment = _augmentation()
    config.model = classifier(encoder)
    add_layer_decay(config)
    config.eval = ConfigDict({"split": "validation", "every_epochs": 1.0})
    config.eval.resize = 0  # short side in pixels before the center crop; 0: 256 for 224, and in proportion
    return config


def labeled(data: ConfigDict) -> ConfigDict:
    """The source with the key of few labels. Adds to `data` and returns it."""
    data.label_fraction = 1.0  # of each class of data.split, chosen by the names of the examples; the rest is not read
    return data


def classifier(encoder: ConfigDict) -> ConfigDict:
    """The encoder with a classification head. Adds to `encoder` and returns it."""
    model = encoder
    model.num_classes = 1000
    model.pool = "mean"  # of the patch tokens; "class" takes ViT's class token
    model.head_order = "pool_norm"  # the release's; "norm_pool" is timm's for Swin
    model.head_std = 2e-5  # of the new head's kernel; 0.02 suits a Swin that starts from scratch
    model.batch_norm = False
    add_epsilon(model)
    model.trained_blocks = placeholder(int)  # only the last so many blocks, the norm and the head; None: everything
    return model


def _augmentation() -> ConfigDict:
    """What is done to images besides the crop and the flip, and to labels: nothing. Zero or "" turns a part off."""
    augment = ConfigDict()
    augment.randaugment = ""  # timm's string
    augment.erasing = 0.0  # probability
    augment.mixup = 0.0  # parameter of the Beta distribution
    augment.cutmix = 0.0
    augment.switch_prob = 0.5  # of cutmix rather than mixup, per batch
    augment.label_smoothing = 0.0
    return augment
