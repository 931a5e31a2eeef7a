r"""Fine-tuning of the models of study.py on 1, 10 or 100 % of Fashion-MNIST's labels.

    python main.py --config=configs/study_finetune.py:vit_1 --workdir=runs/study/vit_hog_local_multi_finetune \
        --config.checkpoint.init_from=runs/study/vit_hog_local_multi

Without checkpoint.init_from it is supervised training from scratch, the study's baseline. Published: nothing at this
scale. The rate falls from layer to layer as in quickstart_finetune.py, and augmentation is crops and flips.
"""

from localmim_jax.configs.parts import finetune, labeled

from localmim_jax.configs import study

EPOCHS = {"1": 30.0, "10": 8.0, "100": 3.0}  # by the percentage of the labels


def sweep():
    """The arguments of `get_config`."""
    return [f"{backbone}_{percent}" for backbone in study.LAYERS for percent in EPOCHS]


def get_config(run="vit_1"):
    backbone, percent = run.split("_")
    pretraining = study.get_config(f"{backbone}_hog_local_multi")
    config = finetune(study.encoder(backbone, drop_path=0.1))
    config.image_size = pretraining.image_size
    config.batch_size = 32
    config.num_epochs = EPOCHS[percent]
    config.data = labeled(pretraining.data)
    config.data.label_fraction = int(percent) / 100
    config.augment.update({"randaugment": "", "erasing": 0.0, "mixup": 0.0, "cutmix": 0.0})
    config.model.num_classes = 10
    config.optimizer.layer_decay = 0.75
    config.schedule.peak_lr = 2e-3
    config.schedule.warmup_epochs = config.num_epochs / 10
    config.checkpoint.every_epochs = config.num_epochs / 10
    config.log.every_steps = 50
    config.eval.update({"split": "test", "resize": 64, "every_epochs": 0.0})
    return config
