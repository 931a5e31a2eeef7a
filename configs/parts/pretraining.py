"""Pre-training as in the paper: masks, taps, targets and decoders, as in section C of the supplement."""

from localmim_jax.configs.parts.common import imagenet, run
from localmim_jax.configs.parts.encoders import add_epsilon, is_swin
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def pretrain(encoder: ConfigDict) -> ConfigDict:
    """Pre-training on ImageNet-1K as in the supplement's Table 3; the recipe sets its length. Adds to `encoder`."""
    config = run("pretrain", image_size=(224, 224), batch_size=2048)
    config.data = imagenet()
    config.model = reconstruction(encoder)
    config.optimizer.b2 = 0.95
    config.schedule.base_lr = 1e-4 if is_swin(encoder) else 2e-4

    knn = ConfigDict({"enabled": False})  # accuracy of the frozen encoder; off, since it reads a labeled set
    knn.name, knn.train_split, knn.test_split = "tfds:imagenet2012", "train", "validation"
    knn.k = 20
    knn.temperature = 0.07
    knn.raw_pixels = False  # also the accuracy of the pixels themselves; keeps all images in memory
    knn.every_epochs = 0.0  # 0: only before the first and after the last step
    knn.resize = 0  # short side in pixels before the center crop to image_size; 0: 8/7 of it, as 256 for 224
    knn.max_train = 0  # examples of train_split in the memory bank; 0: all
    knn.high_bit_depth = placeholder(str)  # as data.high_bit_depth, for this dataset; None: the run's
    config.eval = ConfigDict({"knn": knn})
    # RankMe and effective rank of the encoder's features on training images, without labels; num_images=0: never.
    config.eval.rank = ConfigDict({"num_images": 2048, "every_epochs": 10.0, "resize": 0})
    config.eval.reconstruction = ConfigDict({"num_images": 8, "every_epochs": 10.0, "resize": 0})
    return config


def reconstruction(encoder: ConfigDict) -> ConfigDict:
    """The encoder with decoders and HOG targets. Adds to `encoder` and returns it."""
    model = encoder
    model.taps = placeholder(tuple)  # layers from 1; None: a ViT's 2, 4, depth - 2, depth, and each stage of a Swin
    model.fusion = placeholder(tuple)  # layers fused into the one tap before its decoder; None: no fusion
    model.mask_ratio = 0.75
    add_epsilon(model)
    model.target = ConfigDict({"kind": "hog", "bins": 18})  # kind: or "pixels"
    model.target.cells = placeholder(tuple)  # pixels, one per tap; None: a ViT's patch_size / 4, / 2, * 1, * 2
    model.target.hog_bias = placeholder(str)  # npz with the release's frozen gradient bias; None: no bias
    model.decoder = ConfigDict({"num_heads": 8, "depth": 1})
    if is_swin(encoder):
        model.num_masks = 8  # per micro-batch, shared by slices of it; the release: 1 a device
        # One a stage: "packed", or "plain", which is slower (docs/benchmarks.md).
        model.sparse_attention = ("packed",) * len(encoder.depths or range(4))
        model.decoder.num_heads = 4
        model.decoder.width = placeholder(tuple)  # one per tap; None: 64 for the first stage's, 128 for the others
    else:
        model.decoder.width = placeholder(int)  # None: 256
        # "fixed" sine-cosine embeddings, as in the paper, or "learned"; None: fixed, and learned with registers
        model.position = placeholder(str)
    return model


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
