"""Rules for weight decay: patterns of parameter paths, of which exactly one matches each parameter.

In pre-training the release decays matrices and ViT's tokens, but no bias, no norm and, for Swin, neither relative
position bias tables nor mask tokens. In fine-tuning it decays matrices and those tables, but no token and no position.
An encoder's config names the rules of every task, so that a new kind of parameter gets its rule where it is made.
"""

Rules = tuple[tuple[str, bool], ...]  # (pattern, whether matching parameters are decayed)

VIT_PRETRAIN: Rules = (
    (r"(^|/)(kernel|class_token|mask_token)$", True),
    (r"(^|/)(bias|scale)$", False),
    (r"(^|/)position_embedding$", False),  # model.position=learned, which the release does not have
)

SWIN_PRETRAIN: Rules = (
    (r"(^|/)kernel$", True),
    (r"(^|/)(bias|scale|relative_position_bias|mask_token)$", False),
)

FINETUNE: Rules = (
    (r"(^|/)(kernel|relative_position_bias)$", True),
    (r"(^|/)(bias|scale|class_token|position_embedding)$", False),
)

# mmdetection's recipe for Swin: neither norms nor bias tables, but the biases of layers are decayed.
_NORM = r"(^|/)\w*norm\w*(/\d+)?/(scale|bias)$"
DETECT: Rules = (
    (_NORM, False),
    (r"(^|/)(relative_position_bias|class_token|position_embedding)$", False),
    (r"(^|/)kernel$", True),
    (rf"^(?!.*{_NORM}).*(^|/)bias$", True),
)

# A ViT's is BEiT's recipe: no vectors, but tables. The release decays class token and positions too, by an oversight.
SEGMENT_VIT: Rules = (
    (r"(^|/)(kernel|relative_position_bias)$", True),
    (r"(^|/)(bias|scale|scale1|scale2|class_token|position_embedding)$", False),
)
SEGMENT_SWIN = DETECT

VIT = {"pretrain": VIT_PRETRAIN, "finetune": FINETUNE, "segment": SEGMENT_VIT, "detect": DETECT}
SWIN = {"pretrain": SWIN_PRETRAIN, "finetune": FINETUNE, "segment": SEGMENT_SWIN, "detect": DETECT}
