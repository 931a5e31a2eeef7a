"""Names of timm's models, and of MAE's where they differ, in the form of `names`. MAE fine-tunes under timm's names.

timm's ViT bears the names of the release's.
"""

from localmim_jax.convert import names

VIT_FEATURES = (  # a ViT without head; MAE's pre-training files, too, end in a norm
    *names.VIT_ENCODER,
    ("norm/scale", "norm.weight", "same"),
    ("norm/bias", "norm.bias", "same"),
)

VIT_CLASS_TOKEN = (  # global_pool="token"; the pooled one, global_pool="avg", is `names.VIT_CLASSIFIER`
    *VIT_FEATURES,
    ("head/kernel", "head.weight", "linear"),
    ("head/bias", "head.bias", "same"),
)


def swin_encoder(num_stages: int) -> tuple[tuple[str, str, str], ...]:
    """A Swin encoder: here a patch merging begins the stage after it, in the release it ends its own."""
    merging = r"layers.<i>.downsample"
    rules = [rule for rule in names.swin_encoder() if merging not in rule[1]]
    for ours, theirs, layout in names.swin_encoder():
        if merging in theirs:
            rules += [
                (ours.replace("<i>", f"{i}"), theirs.replace("<i>", f"{i + 1}"), layout) for i in range(num_stages - 1)
            ]
    return tuple(rules)


SWIN_HEAD = (
    ("norm/scale", "norm.weight", "same"),
    ("norm/bias", "norm.bias", "same"),
    ("head/kernel", "head.fc.weight", "linear"),
    ("head/bias", "head.fc.bias", "same"),
)

MAE_DECODER = r"mask_token|decoder_.*"
