"""What the names of Hugging Face Transformers' ViT and Swin share, in the form of `names`.

They are those of the files on its hub, which versions 4 and 5 both read. Queries, keys and values are apart there.
"""

_BLOCK = (
    ("norm1/scale", "layernorm_before.weight", "same"),
    ("norm1/bias", "layernorm_before.bias", "same"),
    *(
        (f"attention/{part}/{ours}", f"attention.<self>.{part}.{theirs}", layout)
        for part in ("query", "key", "value")
        for ours, theirs, layout in (("kernel", "weight", "linear"), ("bias", "bias", "same"))
    ),
    ("attention/proj/kernel", "attention.output.dense.weight", "linear"),
    ("attention/proj/bias", "attention.output.dense.bias", "same"),
    ("norm2/scale", "layernorm_after.weight", "same"),
    ("norm2/bias", "layernorm_after.bias", "same"),
    ("mlp/fc1/kernel", "intermediate.dense.weight", "linear"),
    ("mlp/fc1/bias", "intermediate.dense.bias", "same"),
    ("mlp/fc2/kernel", "output.dense.weight", "linear"),
    ("mlp/fc2/bias", "output.dense.bias", "same"),
)

AROUND = (
    ("encoder/patch_embed/kernel", "embeddings.patch_embeddings.projection.weight", "patch"),
    ("encoder/patch_embed/bias", "embeddings.patch_embeddings.projection.bias", "same"),
    ("norm/scale", "layernorm.weight", "same"),
    ("norm/bias", "layernorm.bias", "same"),
)

HEAD = (("head/kernel", "classifier.weight", "linear"), ("head/bias", "classifier.bias", "same"))


def block(ours: str, theirs: str, attention: str) -> tuple[tuple[str, str, str], ...]:
    """The rules of a block under `ours` and `theirs`; `attention` is the name of its self-attention."""
    return tuple((f"{ours}/{a}", f"{theirs}.{b.replace('<self>', attention)}", layout) for a, b, layout in _BLOCK)
