"""XLA's text of a compiled program, parsed: computations, instructions, shapes."""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from functools import cached_property

_BYTES = {"pred": 1, "bf16": 2, "f16": 2, "token": 0, "c64": 8, "c128": 16}
_ARRAY = re.compile(r"\b(pred|bf16|[a-z]+\d+(?:e\dm\d\w*)?|token)\[([\d,]*)\](\{[^{}]*\})?")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .*)?\{$")
_START = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")


@dataclasses.dataclass(frozen=True)
class Array:
    """An array's dtype, dimensions and layout.

    Attributes:
        minor_to_major: its dimensions from the fastest on; empty for the default order.
        tile: the sides that a TPU pads the fastest dimensions to, slowest first; empty for none.
        on_chip: it lies in a TPU's vector or scalar memory.
    """

    dtype: str
    dims: tuple[int, ...]
    minor_to_major: tuple[int, ...] = ()
    tile: tuple[int, ...] = ()
    on_chip: bool = False

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        """Without padding."""
        return self.size * item_bytes(self.dtype)

    @property
    def padded_bytes(self) -> int:
        """With the padding of its tiles."""
        order = self.minor_to_major or tuple(reversed(range(len(self.dims))))
        sides = [self.dims[axis] for axis in order] or [1]  # fastest first
        for i, side in enumerate(reversed(self.tile)):
            if i < len(sides):
                sides[i] = -(-sides[i] // side) * side
        return math.prod(sides) * item_bytes(self.dtype)


def item_bytes(dtype: str) -> int:
    """Bytes of a value."""
    if dtype in _BYTES:
        return _BYTES[dtype]
    bits = re.match(r"[a-z]+(\d+)", dtype)
    return max(1, int(bits[1]) // 8) if bits else 0


def arrays(text: str) -> list[Array]:
    """The arrays of a shape's text, those of a tuple one after another."""
    found = []
    for dtype, dims, layout in _ARRAY.findall(text):
        order, _, rest = layout.strip("{}").partition(":")
        tile = re.match(r"T\(([\d,]+)\)", rest)
        found.append(
            Array(
                dtype,
                _numbers(dims),
                _numbers(order) if re.fullmatch(r"[\d,]*", order) else (),
                _numbers(tile[1]) if tile else (),
                re.search(r"S\([1-46-9]\)", rest) is not None,  # 5 is the host's
            )
        )
    return found


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",") if number)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
        shape: text of the result's shape.
        operands: names of other instructions.
        argument: the text between the parentheses: a parameter's number, a constant's value, the operands.
        attributes: everything behind the operands.
    """

    name: str
    opcode: str
    shape: str
    operands: tuple[str, ...]
    argument: str
    attributes: str
    is_root: bool

    @cached_property
    def result(self) -> list[Array]:
        """The arrays that it makes."""
        return arrays(self.shape)

    @cached_property
    def op_name(self) -> str:
        """What JAX named it: the path of named scopes, then the primitive; "" where it says nothing."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""

    @property
    def target(self) -> str:
        """A custom call's."""
        found = re.search(r'custom_call_target="([^"]*)"', self.attributes)
        return found[1] if found else ""

    @property
    def called(self) -> list[str]:
        """Computations that it runs or fuses."""
        found = re.findall(r"\b(?:calls|to_apply|body|branch_computations|called_computations)=(\{[^}]*\}|%?[\w.\-]+)",
                           self.attributes)  # fmt: skip
        found += re.findall(r"\b(?:true|false)_computation=(%?[\w.\-]+)", self.attributes)
        return [name for text in found for name in re.findall(r"%?([\w.\-]+)", text)]


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program: its computations by name, and the entry's name."""

    computations: Mapping[str, Mapping[str, Instruction]]
    entry: str
    num_partitions: int

    def operands(self, computation: str, instruction: Instruction) -> Iterator[Instruction]:
        """The instructions whose results it reads, in order."""
        known = self.computations[computation]
        return (known[name] for name in instruction.operands if name in known)

    def trips(self, loop: Instruction) -> int | None:
        """How often the body of a `while` runs; None where neither XLA nor a condition "counter < constant" tells."""
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
        if known:
            return int(known[1])
        named = re.search(r"condition=%?([\w.\-]+)", loop.attributes)
        condition = self.computations.get(named[1], {}) if named else {}
        root = next((inner for inner in condition.values() if inner.is_root), None)
        if root is None or root.opcode != "compare" or "direction=LT" not in root.attributes:
            return None
        limit = condition.get(root.operands[1])
        return int(limit.argument) if limit is not None and limit.opcode == "constant" else None


def parse(text: str) -> Program:
    """The program of `jax.stages.Compiled.as_text()`.

    Raises:
        ValueError: the text has no entry computation.
    """
    computations: dict[str, dict[str, Instruction]] = {}
    current: dict[str, Instruction] | None = None
    entry = ""
    for line in text.splitlines():
        if current is not None and (start := _START.match(line)):
            instruction = _instruction(line[start.end() :], start[2], bool(start[1]))
            current[instruction.name] = instruction
        elif header := _HEADER.match(line):
            current = computations.setdefault(header[2], {})
            entry = header[2] if header[1] else entry
        elif line.startswith("}"):
            current = None
    if not entry:
        raise ValueError("no ENTRY computation in the program's text")
    partitions = re.search(r"num_partitions=(\d+)", text.partition("\n")[0])
    return Program(computations, entry, int(partitions[1]) if partitions else 1)


def _instruction(text: str, name: str, is_root: bool) -> Instruction:
    end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    shape, rest = text[:end], text[end:].lstrip()
    opcode, _, _ = rest.partition("(")
    close = _closing(rest, len(opcode))
    inside = rest[len(opcode) + 1 : close]
    return Instruction(
        name, opcode, shape, tuple(re.findall(r"%([\w.\-]+)", inside)), inside, rest[close + 1 :], is_root
    )


def _closing(text: str, start: int) -> int:
    """The place of the parenthesis that closes the one at `start`."""
    depth = 0
    for place in range(start, len(text)):
        if text[place] == "(":
            depth += 1
        elif text[place] == ")":
            depth -= 1
            if depth == 0:
                return place
    raise ValueError(f"unbalanced parentheses: {text[:80]}")
