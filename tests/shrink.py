"""Any recipe, made so small that a CPU runs it in seconds."""

from ml_collections import ConfigDict


def shrink(config: ConfigDict) -> ConfigDict:
    """The same recipe in a few seconds on a CPU: fake data, a tiny model, three steps. For smoke tests.

    Kept: task, seed, targets, dtype, optimizer, rates, schedule, augmentation, evaluations, patches and a Swin's number
    of stages. Changes `config` and returns it.
    """
    is_swin = config.model.variant.startswith("swin")
    layers = len(config.model.get("depths") or range(4))  # to be tapped: a Swin's stages, a tiny ViT's blocks
    unit = config.model.patch_size * (2 ** (layers - 1) if is_swin else 1)  # the mask's
    side = 4 * unit if config.model.get("mask_ratio", 0.0) > 0.75 else 2 * unit  # something has to stay visible
    config.image_size = (side, side)
    config.batch_size = 8
    config.num_steps = 3
    config.data.name = "fake"
    config.data.split = "train"
    config.data.fake_examples = 32
    config.data.num_threads = 1
    if is_swin:
        config.model.update({"width": 8, "depths": (2, 1, 1, 1)[:layers], "num_heads": (1, 2, 2, 2)[:layers]})
    else:
        config.model.update({"width": 32, "depth": layers, "num_heads": 4})
    config.schedule.warmup_steps = 1
    config.checkpoint.update({"every_steps": 2, "every_epochs": 0.0})
    config.log.every_steps = 1
    if config.task == "detect":
        return _shrink_detector(config)
    if config.task == "segment":
        return _shrink_segmenter(config)
    if config.task == "pretrain":
        taps, fusion = config.model.taps or range(1, layers + 1), config.model.fusion or ()
        used = sorted({*taps, *fusion}, reverse=True)  # the same pattern over the layers there are, the highest on top
        new = {layer: max(layers - i, 1) for i, layer in enumerate(used)}
        config.model.taps = tuple(new[tap] for tap in taps)
        if fusion:
            config.model.fusion = tuple(new[layer] for layer in fusion)
        widths = tuple(8 if tap == 1 else 16 for tap in config.model.taps)
        config.model.decoder.update({"width": widths if is_swin else 16, "num_heads": 2})
        if config.model.get("num_masks") is not None:
            config.model.num_masks = max(n for n in (1, 2, 4, 8) if config.model.num_masks % n == 0)
        config.eval.knn.update({"name": "fake", "train_split": "train", "test_split": "test", "resize": side})
        config.eval.knn.update({"k": 3, "max_train": 16, "every_epochs": 0.0})
        config.eval.reconstruction.update({"num_images": 2, "every_epochs": 0.0})
        config.eval.rank.num_images = 0  # to compile the encoder once more would cost more than the steps
    else:
        config.model.num_classes = 1000  # as many as the fake data has
        config.eval.update({"resize": side, "every_epochs": 0.0})
    return config


def _shrink_detector(config: ConfigDict) -> ConfigDict:
    config.image_size = (64, 96)
    config.data.update({"fake_examples": 12, "fake_objects": 4})
    config.data.update({"short_sides": (48, 64), "long_side": 96, "crop_sides": (50, 60), "crop_range": (40, 60)})
    config.data.mask_size = 14
    config.model.update({"channels": 8, "box_head_width": 16, "mask_convs": 1, "rpn_samples": 16, "roi_samples": 16})
    config.model.update({"pre_nms_top_n": 32, "pre_nms_top_n_test": 32, "post_nms_top_n": 16})
    config.model.update({"detections": 8, "num_classes": 3})
    config.eval.update({"short_side": 64, "long_side": 96, "every_epochs": 0.0, "num_pictures": 2})
    config.schedule.milestones = (2,)
    return config


def _shrink_segmenter(config: ConfigDict) -> ConfigDict:
    config.data.fake_examples = 12
    side = config.image_size[0]
    config.model.taps = (1, 2, 3, 4)
    config.data.scale = config.eval.scale = (4 * side, side)
    config.model.update({"channels": 8, "auxiliary_channels": 8, "num_classes": 3})
    config.eval.update({"every_steps": 0, "num_pictures": 2, "batch_size": 8, "stride": 2 * side // 3})
    return config
