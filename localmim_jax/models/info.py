"""The description of a model beyond its arrays, for saving, loading and conversion."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """What arrays do not show. Every field except the first two may be None: unknown, or not applicable.

    Attributes:
        family: kind of the backbone, a name of `registry.KINDS`.
        kind: "pretrain", the encoder with its decoders; "classifier", with a head; "detector"; "segmenter";
            or "encoder", alone.
        image_size: (h, w) in pixels that the positions and windows were made for.
        num_heads: attention heads of the encoder, one number, or one per stage.
        taps: layers that reconstruct in pre-training, counted from 1.
        target: target of pre-training, "hog" or "pixels".
        log2_scale: log2 of every decoder's target grid over its feature grid; only the sign of negative ones counts.
        hog_bias: the release's frozen (gx, gy) bias of each scale's gradient filter.
        pool, head_order: pooling and head of a classifier, as in `ClassifierConfig`, or of an encoder whose final norm
            follows the pooling.
        epsilon: layer-norm epsilon.
    """

    family: str
    kind: str
    image_size: tuple[int, int] | None = None
    num_heads: tuple[int, ...] | None = None
    taps: tuple[int, ...] | None = None
    target: str | None = None
    log2_scale: tuple[int, ...] | None = None
    hog_bias: tuple[tuple[float, float], ...] | None = None
    pool: str | None = None
    head_order: str | None = None
    epsilon: float | None = None
