"""The quickstart with a small Swin instead of a ViT: minutes on two CPU cores, nothing to download.

    python main.py --config=configs/quickstart_swin.py --workdir=runs/quickstart_swin

Published: nothing. Expect: the loss of each scale falls, and the k-NN accuracy of the encoder on the test digits
(knn/accuracy) rises: from 0.653, untrained, to 0.822 in a run of 10 minutes on one core.
Digits enlarged to 32 x 32 are cut into 2 px patches; three stages of 16, 8 and 4 tokens a side, mask units of 8 px.
"""

from localmim_jax.configs.parts import reconstruction, swin

from localmim_jax.configs import quickstart


def encoder(**changes):
    """The small Swin of the quickstarts, in three stages."""
    sizes = {"patch_size": 2, "width": 32, "depths": (2, 2, 2), "num_heads": (2, 4, 8), "window": 4}
    return swin("swin_t", dtype="float32", **sizes | changes)


def get_config():
    config = quickstart.get_config()
    config.model = reconstruction(encoder())
    config.model.decoder.width = (32, 64, 64)
    config.model.target.cells = (4, 8, 16)  # the last stage sees the whole image: let it reconstruct coarsely
    config.model.update({"mask_ratio": 0.5, "num_masks": 32})  # four of 16 mask units would be too few
    config.schedule.base_lr = 1.6e-2
    return config
