r"""UperNet on ADE20K with ViT-B/16 after 1600 epochs of pre-training.

    python main.py --config=configs/vit_b_1600ep_ade20k.py --workdir=runs/vit_b_1600ep_ade20k \
        --config.checkpoint.init_from=runs/vit_b_1600ep --config.data.name=masks:/path/to/ADEChallengeData2016

Published: no number in the supplement. Compare mIoU with the main text of the paper, which we do not have.
Settings follow the supplement ("Semantic segmentation on ADE20K"). Relative position bias and layer scale follow the
release. For a plain ViT:
    --config.model.relative_and_scale=false
"""

from localmim_jax.configs.parts import segment, vit


def get_config():
    config = segment(vit("vit_b", drop_path=0.1))
    config.optimizer.layer_decay = 0.65
    config.schedule.peak_lr = 4e-4
    config.schedule.warmup_lr = 4e-10
    return config
