"""FLOPs of a step, and the peak FLOP/s of devices."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from localmim_jax.params import Tree

# Dense bfloat16 (float16 on V100 and T4) peak of one JAX device in TFLOP/s, from data sheets, without sparsity.
# NVIDIA: A100, H100, H200, L4, L40S, T4, V100 product pages, GA102 and Ada architecture papers (float32 accumulation).
# TPU: cloud.google.com/tpu/docs/system-architecture-tpu-vm, per chip; halved for v2 and v3, whose cores are devices.
# The first name contained in the device's kind counts, so a longer name stands before its beginning.
PEAK_TERAFLOPS = (
    ("H200", 989.4),
    ("H100 PCIe", 756.0),
    ("H100", 989.4),
    ("A100", 312.0),
    ("V100-SXM2", 125.0),
    ("V100-PCIE", 112.0),
    ("L40S", 362.0),
    ("NVIDIA L4", 121.0),
    ("RTX 4090", 165.2),
    ("RTX 3090", 71.0),
    ("Tesla T4", 65.0),
    ("TPU v2", 22.5),
    ("TPU v3", 61.5),
    ("TPU v4 lite", 138.0),
    ("TPU v4", 275.0),
    ("TPU v5 lite", 197.0),
    ("TPU v5e", 197.0),
    ("TPU v5", 459.0),
    ("TPU v6", 918.0),
)


def peak_flops(device_kind: str, dtype: str) -> float | None:
    """Peak FLOP/s of one device in 16-bit arithmetic; None where it is unknown, and for float32 compute."""
    if dtype == "float32":
        return None
    return next((peak * 1e12 for name, peak in PEAK_TERAFLOPS if name in device_kind), None)


def model_flops(jaxpr_of_step: Any, forward: Callable[..., Any], *arguments: Any) -> float:
    """FLOPs that one step of the model needs, without recomputation (remat).

    Counts matrix products and convolutions; a multiply-add is two FLOPs. A backward pass takes twice the FLOPs of the
    forward pass, so a step needs three times the forward pass. Where less is differentiated (a frozen encoder), the
    step itself has fewer, and its own count is returned.

    Args:
        jaxpr_of_step: the whole step's jaxpr.
        forward: the loss, traced with the (abstract) `arguments` to count the forward pass.
    """
    return min(count_flops(jaxpr_of_step), 3 * count_flops(jax.make_jaxpr(forward)(*arguments)))


def count_flops(jaxpr: Any) -> float:
    """FLOPs of the matrix products and convolutions in a jaxpr. Of the branches of a `cond`, the most expensive counts.

    A `while` loop counts as one iteration, since its length is unknown.
    """
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    return sum(_equation_flops(equation) for equation in jaxpr.eqns)


def _equation_flops(equation: Any) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        lhs = equation.invars[0].aval.shape
        return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(lhs[axis] for axis in contracted)
    if name == "conv_general_dilated":
        # Each output value sums over the kernel's window and its (already per group) input channels.
        out_channels_axis = params["dimension_numbers"].rhs_spec[0]
        kernel = equation.invars[1].aval.shape
        window = math.prod(kernel) / kernel[out_channels_axis]
        zeros = math.prod(params["lhs_dilation"])  # zeros inserted by a transposed convolution cost nothing
        return 2.0 * math.prod(equation.outvars[0].aval.shape) * window / zeros
    if name == "cond":
        return max(count_flops(branch) for branch in params["branches"])
    inner = [value for value in params.values() if hasattr(value, "eqns") or hasattr(value, "jaxpr")]
    return params.get("length", 1) * sum(count_flops(value) for value in inner)


def parameter_count(params: Tree) -> int:
    """Number of values in a tree of (abstract) arrays."""
    return sum(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(params))
