"""Keys that every task has: length, optimizer, schedule, devices, checkpoints and log, and its images' source."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def run(task: str, image_size: tuple[int, int], batch_size: int, num_epochs: float = 0.0) -> ConfigDict:
    """Everything but `data`, `model` and `eval`, with AdamW and a cosine; the task or the recipe sets the rate."""
    config = ConfigDict()
    config.task = task
    config.seed = 0
    config.image_size = image_size  # (height, width) in pixels
    config.batch_size = batch_size  # global: over all devices and hosts
    config.num_epochs = num_epochs
    config.num_steps = placeholder(int)  # wins over num_epochs when set
    config.accum_steps = 1  # micro-batches per step; divides batch_size

    config.optimizer = ConfigDict({"name": "adamw", "b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.05})
    config.optimizer.clip_norm = placeholder(float)  # None: gradients are not clipped
    config.optimizer.ema_decay = placeholder(float)  # None: no moving average of the parameters
    config.optimizer.max_bad_steps = 10  # non-finite steps in a row before the run gives up

    # Linear warm-up, then half a cosine, both per step. Exactly one of base_lr and peak_lr is to be set.
    config.schedule = ConfigDict({"kind": "cosine", "min_lr": 0.0, "warmup_epochs": 0.0, "warmup_lr": 0.0})
    config.schedule.base_lr = placeholder(float)  # times batch_size / 256 is the peak: pre-training, linear probe
    config.schedule.peak_lr = placeholder(float)  # the peak itself: everything else
    config.schedule.warmup_steps = placeholder(int)  # wins over warmup_epochs when set

    config.mesh = ConfigDict({"data": -1, "fsdp": 1})  # -1: all the devices that are left
    config.checkpoint = ConfigDict({"every_steps": 0, "every_epochs": 1.0, "keep_last": 2, "keep_every_steps": 0})
    config.checkpoint.init_from = placeholder(str)  # a checkpoint whose parameters this run starts from, at step 0
    # init_from is a Swin in the standard order of patch merging; False: in the release's; None: as its decoders prove
    config.checkpoint.standard_merging = placeholder(bool)
    config.checkpoint.reset_positions = False  # True: a ViT's learned positions in init_from are dropped
    config.log = ConfigDict({"every_steps": 50, "profile_at": 0, "notes": ""})  # profile_at: step, 0 = never
    config.log.wandb = ""  # project of Weights & Biases, or ENTITY/PROJECT; "": off
    return config


def images(name: str, split: str, num_examples: int) -> ConfigDict:
    """The source of a task's images and the input pipeline; the task adds its augmentation.

    Args:
        name: what `data.name` is unless overridden; "fake" works for every task.
        split: of `name`, to train on.
        num_examples: of the dataset, and so of the "fake" source.
    """
    data = ConfigDict()
    data.name = name
    data.split = split
    data.data_dir = ""  # where TFDS keeps its datasets, and generated ones are kept; "" is TFDS's default
    data.channels = 3
    data.mean = IMAGENET_MEAN  # of pixels in 0..1, one per channel
    data.std = IMAGENET_STD
    data.flip = True
    data.high_bit_depth = ""  # of 16-bit and float images: "" the type's range, "max", "percentile", "BLACK:WHITE"
    data.allow_change = False  # resume although the training set has changed since the run was started
    data.num_threads = 0  # 0: one per core
    data.num_workers = 0  # processes; 0 reads in threads
    data.prefetch_batches = 2
    data.max_bad_fraction = 0.01  # fraction of undecodable images above which the run stops
    data.transform = placeholder(str)  # name of the function that localmim_jax.train was given; None: the recipe's own
    data.fake_examples = num_examples  # size of the "fake" source
    return data


def imagenet() -> ConfigDict:
    """ImageNet-1K through TFDS, with RandomResizedCrop (bicubic) and horizontal flips."""
    data = images("tfds:imagenet2012", "train", 1281167)  # name: or "folder:/path", "photos", "digits", "fake"
    data.val_fraction = 0.0  # of a folder without a validation part: held out of training as the split "val"
    data.crop_scale = (0.2, 1.0)  # RandomResizedCrop: fraction of the image's area
    data.crop_ratio = (3 / 4, 4 / 3)  # and width / height
    data.fast_decode = False  # JPEGs at reduced size where the crop allows, bilinear: faster, not pixel-exact
    # More augmentation of training images, off as in the paper: data/augment.py and data/color.py name the sources.
    data.vertical_flip = False  # with probability 1/2
    data.rotate90 = False  # by 0, 90, 180 or 270 degrees, equally likely; needs square images
    data.color_jitter = (0.0, 0.0, 0.0, 0.0)  # strengths: brightness, contrast, saturation, hue (at most 0.5)
    data.grayscale = 0.0  # probability
    return data


def add_layer_decay(config: ConfigDict) -> None:
    """The key of layer-wise learning-rate decay, for tasks that fine-tune the encoder."""
    config.optimizer.layer_decay = placeholder(float)  # rate of a layer over that of the layer above; None: the same
