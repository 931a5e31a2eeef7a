"""timm and Transformers import torchvision, whose build for CUDA lacks its operators beside a torch for CPU."""

import functools


@functools.cache
def declare_operators():
    """Declares them, once a process, so that the import succeeds; nothing here calls one."""
    import torch

    library = torch.library.Library("torchvision", "DEF")
    operators = ["nms", "qnms"]
    for name in ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d"):
        operators += [name, f"_{name}_backward"]
    for name in operators:
        library.define(f"{name}(Tensor x) -> Tensor")
    return library
