r"""The quickstart's encoder fine-tuned on 100 labeled digits: about a minute on two CPU cores.

    python main.py --config=configs/quickstart_finetune.py --workdir=runs/quickstart_finetune \
        --config.checkpoint.init_from=runs/quickstart

Published: nothing. Expect: a much higher top-1 on the test split than from scratch, which is the same command without
init_from (and with another workdir). With seed 0, we measured 0.906 and 0.697.
"""

from localmim_jax.configs.parts import finetune, labeled

from localmim_jax.configs import quickstart


def get_config():
    pretraining = quickstart.get_config()
    config = finetune(quickstart.encoder(drop_path=0.1))
    config.image_size = pretraining.image_size
    config.batch_size = 50
    config.num_epochs = 100.0

    config.data = labeled(pretraining.data)
    config.data.split = "train[:100]"
    config.augment.update({"randaugment": "", "erasing": 0.0, "mixup": 0.0, "cutmix": 0.0})

    config.model.num_classes = 10
    config.optimizer.layer_decay = 0.75
    config.schedule.peak_lr = 2e-3
    config.schedule.warmup_epochs = 10.0
    config.checkpoint.every_epochs = 0.0
    config.log.every_steps = 50
    config.eval.update({"split": "test", "resize": 32, "every_epochs": 0.0})
    return config
