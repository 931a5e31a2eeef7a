"""What the recipes share. Every key of a config is declared here, so that a typo on the command line is refused.

`placeholder(type)` is a value that is None until somebody sets it; the comment beside it says what None means.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def pretrain() -> ConfigDict:
    """Pre-training as in the supplement's Table 3, for ViT-B on ImageNet-1K; the recipe still sets its length."""
    config = ConfigDict()
    config.task = "pretrain"
    config.seed = 0
    config.image_size = (224, 224)  # (height, width) in pixels
    config.batch_size = 2048  # global: over all devices and hosts
    config.num_epochs = 0.0
    config.num_steps = placeholder(int)  # wins over num_epochs when set
    config.accum_steps = 1  # micro-batches per step; divides batch_size

    config.data = imagenet()
    config.model = vit("vit_b")
    config.optimizer = adamw()
    config.schedule = cosine()
    config.schedule.base_lr = 2e-4

    config.mesh = ConfigDict({"data": -1, "fsdp": 1})  # -1: all the devices that are left
    config.checkpoint = ConfigDict({"every_steps": 0, "every_epochs": 1.0, "keep_last": 2, "keep_every_steps": 0})
    config.checkpoint.init_from = placeholder(str)  # a checkpoint whose parameters this run starts from, at step 0
    config.checkpoint.standard_merging = (
        False  # init_from is a Swin pre-training .pth, but not with the release's order
    )
    config.log = ConfigDict({"every_steps": 50, "profile_at": 0, "notes": ""})  # profile_at: step, 0 = never
    config.eval = evaluation()
    return config


def finetune(model: ConfigDict) -> ConfigDict:
    """Fine-tuning on ImageNet-1K as in the supplement's Table 4; the recipe sets rates, layer decay and drop path.

    `model` is a pre-training model; its encoder is used.
    """
    config = pretrain()
    config.task = "finetune"
    config.batch_size = 1024
    config.num_epochs = 100.0
    config.data.crop_scale = (0.08, 1.0)
    config.augment = augmentation()
    config.model = classifier(model)
    config.optimizer.b2 = 0.999
    config.optimizer.layer_decay = placeholder(float)  # rate of a layer over that of the layer above; None: the same
    config.schedule.base_lr = None
    config.schedule.warmup_epochs = 20.0
    config.eval = ConfigDict({"split": "validation", "every_epochs": 1.0})
    config.eval.resize = 0  # short side in pixels before the center crop; 0: 256 for 224, and in proportion
    return config


def linear_probe(model: ConfigDict) -> ConfigDict:
    """A linear classifier on the frozen encoder, by MAE's protocol: LARS, a batch norm without scale and bias."""
    config = finetune(model)
    config.task = "linear_probe"
    config.batch_size = 16384
    config.num_epochs = 90.0
    config.augment.update({"randaugment": "", "erasing": 0.0, "mixup": 0.0, "cutmix": 0.0, "label_smoothing": 0.0})
    config.model.update({"batch_norm": True, "head_order": "norm_pool", "head_std": 0.01})
    config.optimizer.update({"name": "lars", "momentum": 0.9, "weight_decay": 0.0})
    config.schedule.base_lr = 0.1
    config.schedule.warmup_epochs = 10.0
    return config


def detect(model: ConfigDict) -> ConfigDict:
    """Mask R-CNN on COCO for 36 epochs (Swin's 3x recipe), as in the supplement.

    `model` is a pre-training model; its encoder is used.
    """
    config = pretrain()
    config.task = "detect"
    config.image_size = (800, 1344)  # of a padded landscape image; portrait images use it transposed
    config.batch_size = 16
    config.num_epochs = 36.0
    config.data = coco()
    config.model = detector(model)
    config.optimizer.b2 = 0.999
    config.schedule.update({"kind": "steps", "base_lr": None, "peak_lr": 1e-4, "warmup_steps": 1000})
    config.schedule.warmup_lr = 1e-7
    config.schedule.milestone_epochs = (27.0, 33.0)  # where the rate falls to a tenth
    config.schedule.milestones = placeholder(tuple)  # steps; they win when set
    config.eval = ConfigDict({"split": "val2017", "every_epochs": 3.0, "short_side": 800, "long_side": 1333})
    config.eval.num_pictures = 8
    return config


def detector(model: ConfigDict) -> ConfigDict:
    """The encoder's part of a pre-training model, with Mask R-CNN's heads."""
    _encoder_only(model)
    model.update({"num_classes": 80, "channels": 256, "box_head_width": 1024, "mask_convs": 4, "anchor_scale": 8.0})
    model.update({"rpn_samples": 256, "roi_samples": 512})  # anchors and regions of an image that the losses look at
    model.update({"pre_nms_top_n": 2000, "pre_nms_top_n_test": 1000})  # proposals of each level before NMS: train, test
    model.update({"post_nms_top_n": 1000, "detections": 100})  # maximum per image: proposals after NMS, detections
    model.score_threshold = 0.05  # minimum score of a detection
    model.sampling_ratio = 0  # RoIAlign samples along a side of a bin; 0: one per cell, rounded up
    return model


def coco() -> ConfigDict:
    """COCO 2017, or any dataset in its format, with the multi-scale training of Swin's recipe."""
    data = ConfigDict()
    data.name = "coco:data/coco"  # folder with annotations/instances_<split>.json and <split>/; or "shapes", "fake"
    data.split = "train2017"
    data.data_dir = ""  # where "shapes" is kept; "" is TFDS's default
    data.channels = 3
    data.mean = IMAGENET_MEAN
    data.std = IMAGENET_STD
    data.skip_empty = True  # training images without a usable object
    data.short_sides = tuple(range(480, 801, 32))  # pixels, one is drawn
    data.long_side = 1333  # at most
    data.crop_probability = 0.5  # of resizing to one of crop_sides and cropping first
    data.crop_sides = (400, 500, 600)
    data.crop_range = (384, 600)  # of a crop's height and width
    data.flip = True
    data.mask_size = 112  # cells along a side of a ground-truth mask over its box
    data.num_threads = 0  # 0: one per core
    data.num_workers = 0  # processes; 0 reads in threads
    data.prefetch_batches = 2
    data.max_bad_fraction = 0.01  # share of unusable images above which the run stops
    data.fake_examples = 117266  # size of the "fake" source
    data.fake_objects = 100  # places for objects in each of its images; COCO's fullest images have nearly as many
    return data


def segment(model: ConfigDict) -> ConfigDict:
    """UperNet on ADE20K for 160 K steps, as in the supplement; the recipe sets rates, decay and drop path.

    `model` is a pre-training model; its encoder is used.
    """
    is_swin = model.variant.startswith("swin")
    config = pretrain()
    config.task = "segment"
    config.image_size = (512, 512)  # of a training crop, and a ViT's window
    config.batch_size = 16
    config.num_steps = 160000
    config.data = ade20k()
    config.model = segmenter(model)
    config.optimizer.b2 = 0.999
    config.optimizer.layer_decay = placeholder(float)  # rate of a layer over that of the layer above; None: the same
    config.schedule.update({"kind": "linear", "base_lr": None, "warmup_steps": 1500})
    config.checkpoint.update({"every_steps": 8000, "every_epochs": 0.0})
    config.eval = ConfigDict({"split": "validation", "every_steps": 16000, "num_pictures": 8})
    config.eval.batch_size = 16  # global; whole images need more memory than crops
    config.eval.mode = "whole" if is_swin else "slide"  # the whole image at once, or windows of image_size
    config.eval.stride = 341  # pixels from one window to the next
    config.eval.scale = (2048, 512)  # (long side, short side) that images are resized to, their ratio kept
    config.eval.multiple = 32  # sides are rounded to multiples of this: few shapes to compile; 1 keeps ratios exactly
    config.eval.ratios = (1.0,)  # of scale; several are averaged: (0.5, 0.75, 1.0, 1.25, 1.5, 1.75) is usual
    config.eval.flip = False  # average with the mirror image
    config.eval.write_masks = False  # predictions as indexed PNGs in WORKDIR/masks
    return config


def segmenter(model: ConfigDict) -> ConfigDict:
    """The encoder's part of a pre-training model, with UperNet's heads."""
    is_swin = model.variant.startswith("swin")
    _encoder_only(model)
    if not is_swin:
        model.relative_and_scale = True  # relative position bias and layer scale, the release's; False: a plain ViT
    model.taps = placeholder(tuple)  # four layers, counted from 1; None: the paper's
    model.num_classes = 150
    model.channels = 512 if is_swin else 768  # of UperNet
    model.auxiliary_channels = 256  # of the FCN head on the map of stride 16; 0: no such head
    model.auxiliary_weight = 0.4  # of its loss
    model.pool_scales = (1, 2, 3, 6)
    model.dropout = 0.1  # of channels before each classifier
    return model


def ade20k() -> ConfigDict:
    """ADE20K, or any images with index masks, with OpenMMLab's augmentation."""
    data = ConfigDict()
    # A folder with images/<split>, annotations/<split> and a class list; or "tfds:<name>", "regions", "fake".
    data.name = "masks:data/ADEChallengeData2016"
    data.split = "training"
    data.data_dir = ""  # where TFDS keeps datasets and "regions" is kept; "" is TFDS's default
    data.zero_ignored = True  # 0 in a mask is no class, and 1 the first; False: 0 is the first. 255 is never a class
    data.channels = 3
    data.mean = IMAGENET_MEAN
    data.std = IMAGENET_STD
    data.scale = (2048, 512)  # (long side, short side) that images are resized to, times a factor, their ratio kept
    data.ratio_range = (0.5, 2.0)  # of that factor
    data.max_class_fraction = 0.75  # of one class in a crop, up to ten tries; 1 accepts any crop
    data.flip = True
    data.brightness = 32.0  # of 255, at most; here and below 0 turns it off
    data.contrast = 0.5  # factors of 1 - this to 1 + this
    data.saturation = 0.5
    data.hue = 36.0  # degrees, at most
    data.num_threads = 0  # 0: one per core
    data.num_workers = 0  # processes; 0 reads in threads
    data.prefetch_batches = 2
    data.max_bad_fraction = 0.01  # share of unusable images above which the run stops
    data.fake_examples = 20210  # size of the "fake" source
    return data


def _encoder_only(model: ConfigDict) -> None:
    for key in ("taps", "fusion", "mask_ratio", "num_masks", "target", "decoder", "sparse_attention"):
        if key in model:
            del model[key]


def classifier(model: ConfigDict) -> ConfigDict:
    """The encoder's part of a pre-training model, with a classification head."""
    _encoder_only(model)
    model.num_classes = 1000
    model.pool = "mean"  # of the patch tokens; "class" takes ViT's class token
    model.head_order = "pool_norm"  # the release's; "norm_pool" is timm's for Swin
    model.head_std = 2e-5  # of the new head's kernel; 0.02 suits a Swin that starts from scratch
    model.batch_norm = False
    model.trained_blocks = placeholder(int)  # only the last so many blocks, the norm and the head; None: everything
    return model


def augmentation() -> ConfigDict:
    """What fine-tuning does to images besides the crop and the flip, and to labels. Zero or "" turns a part off."""
    return ConfigDict(
        {
            "randaugment": "rand-m9-mstd0.5-inc1",
            "erasing": 0.25,  # probability
            "mixup": 0.8,  # parameter of the Beta distribution
            "cutmix": 1.0,
            "switch_prob": 0.5,  # of cutmix rather than mixup, per batch
            "label_smoothing": 0.1,
        }
    )


def imagenet() -> ConfigDict:
    """ImageNet-1K through TFDS, with the pre-training augmentation (scale 0.2-1, bicubic, horizontal flip)."""
    data = ConfigDict()
    data.name = "tfds:imagenet2012"  # or "folder:/path", "photos", "digits", "fake"
    data.split = "train"
    data.data_dir = ""  # where TFDS keeps its datasets; "" is its own default
    data.channels = 3
    data.mean = IMAGENET_MEAN  # of pixels in 0..1, one per channel
    data.std = IMAGENET_STD
    data.crop_scale = (0.2, 1.0)  # RandomResizedCrop: share of the image's area
    data.crop_ratio = (3 / 4, 4 / 3)  # and width / height
    data.flip = True
    data.fast_decode = False  # JPEGs at reduced size where the crop allows, bilinear: faster, not pixel-exact
    data.num_threads = 0  # 0: one per core
    data.num_workers = 0  # processes; 0 reads in threads
    data.prefetch_batches = 2
    data.max_bad_fraction = 0.01  # share of undecodable images above which the run stops
    data.fake_examples = 1281167  # size of the "fake" source
    return data


def vit(variant: str) -> ConfigDict:
    """A ViT with its decoders and HOG targets as in the paper, section C of the supplement."""
    model = ConfigDict()
    model.variant = variant
    model.patch_size = 16
    model.width = placeholder(int)  # None: the variant's, here and below
    model.depth = placeholder(int)
    model.num_heads = placeholder(int)
    model.mlp_ratio = 4.0
    model.drop_path = 0.0
    model.taps = placeholder(tuple)  # 1-based blocks; None: 2, 4, depth - 2, depth; one may be named several times
    model.fusion = placeholder(tuple)  # layers fused into the one tap before its decoder; None: no fusion
    model.mask_ratio = 0.75
    model.dtype = "bfloat16"  # of the computation; parameters, norms, softmax, targets and loss are float32
    model.remat = False
    model.attention = "auto"  # cuDNN's fused kernel where there is one (NVIDIA, 16-bit dtype), else XLA's
    model.target = ConfigDict({"kind": "hog", "bins": 18})
    model.target.cells = placeholder(tuple)  # pixels, one per tap; None: patch_size / 4, / 2, * 1, * 2
    model.target.hog_bias = placeholder(str)  # npz with the release's frozen gradient bias; None: no bias
    model.decoder = ConfigDict({"num_heads": 8, "depth": 1})
    model.decoder.width = placeholder(int)  # None: 256
    return model


def swin(variant: str) -> ConfigDict:
    """A Swin with its decoders and HOG targets as in the paper. Window 14 is the release's for Swin-L."""
    model = vit(variant)
    del model["depth"], model["num_heads"], model.decoder["width"]  # of other types here
    model.patch_size = 4
    model.depths = placeholder(tuple)  # blocks of each stage; None: the variant's
    model.num_heads = placeholder(tuple)  # of each stage
    model.window = 7  # tokens along a side
    model.num_masks = 8  # per batch (micro-batch under accumulation), shared by slices of it; the release: 1 a device
    model.sparse_attention = ("packed",) * 4  # or "plain", of each stage, as measured: docs/benchmarks.md
    model.decoder.num_heads = 4
    model.decoder.width = placeholder(tuple)  # one per tap; None: 64 for the first stage's, 128 for the others
    return model


def pretrain_swin(variant: str) -> ConfigDict:
    """Pre-training as in the supplement's Table 3, for a Swin."""
    config = pretrain()
    config.model = swin(variant)
    config.schedule.base_lr = 1e-4
    return config


def reconstruct(
    config: ConfigDict, method: str, taps: tuple[int, ...], cells: tuple[int, ...], native: int
) -> ConfigDict:
    """The pre-training config with the reconstruction of Tables 1 and 2 that `method` names. Changes and returns it.

    `global_single` is one decoder on the top layer for the native top grid, and `global_fusion` the same for the
    features of all taps, fused. `global_multi` has a decoder for every scale, all on the top layer; `local_single` one
    on every tap, all for the native top grid; `local_multi` is the method itself.

    Args:
        taps: the layers that reconstruct locally, the top one last.
        cells: their targets' cells in pixels.
        native: cell of the top layer's own grid.
    """
    top, count = taps[-1], len(taps)
    config.model.taps, config.model.target.cells, config.model.fusion = {
        "global_single": ((top,), (native,), None),
        "global_multi": ((top,) * count, cells, None),
        "local_single": (taps, (native,) * count, None),
        "local_multi": (taps, cells, None),
        "global_fusion": ((top,), (native,), taps),
    }[method]
    return config


def adamw() -> ConfigDict:
    """AdamW of pre-training; which parameters decay is the task's own rule."""
    optimizer = ConfigDict({"name": "adamw", "b1": 0.9, "b2": 0.95, "eps": 1e-8, "weight_decay": 0.05})
    optimizer.clip_norm = placeholder(float)  # None: gradients are not clipped
    optimizer.ema_decay = placeholder(float)  # None: no moving average of the parameters
    optimizer.max_bad_steps = 10  # non-finite steps in a row before the run gives up
    return optimizer


def cosine() -> ConfigDict:
    """Linear warm-up, then half a cosine, both per step. Exactly one of the two rates is to be set."""
    schedule = ConfigDict({"kind": "cosine", "min_lr": 0.0, "warmup_epochs": 0.0, "warmup_lr": 0.0})
    schedule.base_lr = placeholder(float)  # times batch_size / 256 is the peak: pre-training
    schedule.peak_lr = placeholder(float)  # the peak itself: everything downstream
    schedule.warmup_steps = placeholder(int)  # wins over warmup_epochs when set
    return schedule


def evaluation() -> ConfigDict:
    """k-NN accuracy of the frozen encoder (off: it reads a labeled set) and pictures of reconstructions."""
    knn = ConfigDict({"enabled": False, "name": "tfds:imagenet2012", "train_split": "train"})
    knn.test_split = "validation"
    knn.k = 20
    knn.temperature = 0.07
    knn.raw_pixels = False  # also the accuracy of the pixels themselves; keeps all images in memory
    knn.every_epochs = 0.0  # 0: only before the first and after the last step
    knn.resize = 0  # short side in pixels before the center crop to image_size; 0: 8/7 of it, as 256 for 224
    knn.max_train = 0  # examples of train_split in the memory bank; 0: all
    return ConfigDict({"knn": knn, "reconstruction": {"num_images": 8, "every_epochs": 10.0, "resize": 0}})


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
