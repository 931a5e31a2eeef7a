r"""Mask R-CNN on COCO with Swin-B (pixel targets) after 400 epochs of pre-training.

    python main.py --config=configs/swin_b_pixel_400ep_coco.py --workdir=runs/swin_b_pixel_400ep_coco \
        --config.checkpoint.init_from=runs/swin_b_pixel_400ep --config.data.name=coco:/path/to/coco

Published: no number in the supplement. Compare box and mask AP of Swin-B with the main text of the paper, which we do
not have.
Settings follow the supplement ("Object detection and segmentation on COCO", Swin's 3x schedule). The drop path of 0.3
is ours, since none is published. Two images fit in 32 GB (docs/detection.md), so 16 need eight such devices, or one
device with
    --config.accum_steps=8
"""

from localmim_jax.configs.parts import detect, swin


def get_config():
    return detect(swin("swin_b", drop_path=0.3, remat=True))
