r"""Fine-tuning of cifar10.py's tiny ViT on the labels of CIFAR-10.

    python main.py --config=configs/cifar10_finetune.py --workdir=runs/cifar10_finetune \
        --config.checkpoint.init_from=runs/cifar10

Published: nothing for LocalMIM; see cifar10.py for MAE. Augmentation and regularization are ImageNet's. Not run by us.
"""

from localmim_jax.configs.parts import finetune, labeled

from localmim_jax.configs import cifar10


def get_config():
    pretraining = cifar10.get_config()
    config = finetune(cifar10.encoder(drop_path=0.1))
    config.image_size = pretraining.image_size
    config.batch_size = 512
    config.data = labeled(pretraining.data)
    config.model.num_classes = 10
    config.optimizer.layer_decay = 0.75
    config.schedule.update({"peak_lr": 2e-3, "min_lr": 1e-6, "warmup_epochs": 5.0})
    config.eval.update({"split": "test", "resize": 96})
    return config
