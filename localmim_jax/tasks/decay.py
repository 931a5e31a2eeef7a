"""Which parameters weight decay shrinks: rules over parameter paths, each parameter matched by exactly one.

In pre-training the release decays matrices and ViT's tokens, but no bias, no norm and, for Swin, neither relative
position bias tables nor mask tokens.
"""

VIT_PRETRAIN = (
    (r"(^|/)(kernel|class_token|mask_token)$", True),
    (r"(^|/)(bias|scale)$", False),
)
