"""FLOPs of the matrix products and convolutions of a compiled program; a multiply-add is two."""

import math
import re

from localmim_jax.planning.hlo import Instruction, Program

_ATTENTION = {"__cudnn$fmha": 4, "Backward": 10}  # times b h q k d: two products forward, five backward


def flops(program: Program, computation: str, instruction: Instruction) -> tuple[float, str]:
    """(FLOPs, dtype of the factors) of an instruction and of everything that it fuses; (0, "") for none."""
    sides = [operand.result[0] for operand in program.operands(computation, instruction) if operand.result]
    own = 0.0
    if instruction.opcode == "dot" and sides:
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
        own = 2.0 * instruction.result[0].size * _extent(sides[0].dims, contracted[1] if contracted else "")
    elif instruction.opcode == "convolution" and len(sides) > 1:
        own = _convolution(instruction, sides[0].dims, sides[1].dims)
    elif instruction.opcode == "custom-call" and sides:
        own = _custom_call(instruction, [side.dims for side in sides])
    if own:
        return own, sides[0].dtype
    total, dtype = 0.0, ""
    if instruction.opcode in ("fusion", "call", "async-start"):
        for name in instruction.called:
            for inner in program.computations.get(name, {}).values():
                more, kind = flops(program, name, inner)
                total, dtype = total + more, kind or dtype
    return total, dtype


def _extent(dims: tuple[int, ...], axes: str) -> int:
    return math.prod(dims[int(axis)] for axis in re.findall(r"\d+", axes))


def _custom_call(instruction: Instruction, sides: list[tuple[int, ...]]) -> float:
    target, result = instruction.target, instruction.result[0]
    if "fmha" in target:
        shape = re.search(r'"intermediate_tensor_shape":\s*\{.*?"dimensions":\s*\[([^\]]*)\]', instruction.attributes)
        b, heads, queries, keys = map(int, re.findall(r"\d+", shape[1])) if shape else (0, 0, 0, 0)
        width = math.prod(sides[0]) // max(1, b * heads * queries)
        return float(
            _ATTENTION["Backward" if "Backward" in target else "__cudnn$fmha"] * b * heads * queries * keys * width
        )
    if "cublas" in target or "gemm" in target.lower():
        contracted = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', instruction.attributes)
        return 2.0 * result.size * _extent(sides[0], contracted[1]) if contracted else 0.0
    if "cudnn$conv" in target and len(sides) > 1:
        labels = re.search(r"dim_labels=\w+_(\w+)->\w+", instruction.attributes)
        kernel = result.dims if "BackwardFilter" in target else sides[1]
        outputs = {"BackwardFilter": sides[1], "BackwardInput": sides[0]}
        out = next((dims for name, dims in outputs.items() if name in target), result.dims)
        features = kernel[labels[1].index("o")] if labels else 1
        return 2.0 * math.prod(out) * math.prod(kernel) / features
    return 0.0


def _convolution(instruction: Instruction, lhs: tuple[int, ...], rhs: tuple[int, ...]) -> float:
    """TPUs also write batched products as convolutions, so places outside the input and in its gaps must not count."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    if labels is None:
        return 0.0
    window = re.search(r"window=\{([^}]*)\}", instruction.attributes)
    fields = dict(part.split("=") for part in window[1].split()) if window else {}
    spatial = sorted(label for label in labels[1] if label.isdigit())
    places = 1
    for i, label in enumerate(spatial):
        size = rhs[labels[2].index(label)]

        def one(name: str, default: str, i: int = i) -> str:
            return fields[name].split("x")[i] if name in fields else default

        low = int(one("pad", "0_0").split("_")[0])
        places *= _valid_places(
            lhs[labels[1].index(label)],
            size,
            instruction.result[0].dims[labels[3].index(label)],
            int(one("stride", "1")),
            int(one("lhs_dilate", "1")),
            int(one("rhs_dilate", "1")),
            low,
        )
    groups = re.search(r"batch_group_count=(\d+)", instruction.attributes)
    batch = lhs[labels[1].index("b")] // (int(groups[1]) if groups else 1)
    return 2.0 * batch * rhs[labels[2].index("i")] * rhs[labels[2].index("o")] * places


def _valid_places(size: int, window: int, out: int, stride: int, lhs_dilate: int, rhs_dilate: int, low: int) -> int:
    """Pairs of an output and a place of its window that meet a value of the input, along one dimension."""
    extent = (size - 1) * lhs_dilate + 1
    count = 0
    for k in range(window):
        first = k * rhs_dilate - low  # the input's place for the first output
        if lhs_dilate == 1:
            start = max(0, -(first // stride) if first < 0 else 0)
            stop = min(out - 1, (extent - 1 - first) // stride)
            count += max(0, stop - start + 1)
        else:
            count += sum(
                1 for o in range(out) if 0 <= (place := first + o * stride) < extent and place % lhs_dilate == 0
            )
    return count
