"""What a compiled program does on each device: its kernels, their bytes and FLOPs by part of the model, its traffic."""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

from localmim_jax.planning import products
from localmim_jax.planning.hlo import Array, Instruction, Program

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
_FREE = {
    *("parameter", "get-tuple-element", "tuple", "bitcast", "constant", "after-all", "partition-id", "replica-id"),
    *("opt-barrier", "add-dependency", "domain", "get-dimension-size"),
}
_FREE_TARGETS = {
    "Sharding",
    "AllocateBuffer",
    "AssumeGatherIndicesInBound",
    "GetDimensionSize",
    "annotate_device_placement",
}
_PARTIAL = {"slice", "dynamic-slice", "gather"}  # they read only what they return
_WRAPPER = re.compile(r"^(?:jvp|transpose|vmap|checkpoint|remat)\((.*)\)$")
_NO_SCOPE = {"", "gradients", "backbone", "while", "body", "cond", "branch", "closed_call", "rematted_computation",
             "checkpoint", "shard_map", "scan"}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One kernel.

    Attributes:
        name, opcode: of its instruction.
        part: of the model or of the step, from its named scopes.
        backward: it belongs to the backward pass.
        times: how often it runs in a step.
        bytes: that it moves to and from memory each time, with padding.
        padding: of these, bytes that only fill tiles.
        flops: of its products, each time.
        dtype: of their factors; "" without products.
    """

    name: str
    opcode: str
    part: str
    backward: bool
    times: int
    bytes: int
    padding: int
    flops: float
    dtype: str


@dataclasses.dataclass(frozen=True)
class Collective:
    """Traffic between devices.

    Attributes:
        kind: its opcode.
        part: from its named scopes.
        times: how often it runs in a step.
        arrays: how many arrays it takes together.
        payload: bytes of the whole arrays: gathered, reduced or sent.
        group: devices that take part together.
    """

    kind: str
    part: str
    times: int
    arrays: int
    payload: int
    group: int

    @property
    def traffic(self) -> float:
        """Bytes that each device sends, each time, in a ring."""
        n = self.group
        factor = {"all-reduce": 2 * (n - 1) / n, "collective-permute": 1.0}.get(self.kind, (n - 1) / n)
        return self.payload * factor


@dataclasses.dataclass(frozen=True)
class Work:
    """Everything that a step does on one device.

    Attributes:
        unknown_loops: loops of unknown length, each counted as one turn.
    """

    kernels: tuple[Kernel, ...]
    collectives: tuple[Collective, ...]
    unknown_loops: int


def work_of(program: Program) -> Work:
    """The work of a program."""
    kernels: list[Kernel] = []
    collectives: list[Collective] = []
    unknown = 0
    names = {name: _names(program, name) for name in program.computations}
    for computation, instruction, times, known in _executed(program, program.entry, 1):
        unknown += not known
        if instruction.opcode == "while":
            continue
        name = names[computation][instruction.name]
        found = list(_collectives(program, computation, instruction, times, name))
        collectives += found
        if not found or instruction.opcode == "fusion":
            kernels += _kernel(program, computation, instruction, times, name)
    return Work(tuple(kernels), tuple(collectives), unknown)


def _executed(program: Program, computation: str, times: int) -> Iterator[tuple[str, Instruction, int, bool]]:
    """(computation, instruction, times, whether these are known) of everything that is launched, loops first."""
    for instruction in program.computations[computation].values():
        if instruction.opcode == "while":
            trips = program.trips(instruction)
            yield computation, instruction, times, trips is not None
            for name in instruction.called:
                yield from _executed(program, name, times * (trips or 1))
        elif instruction.opcode == "call":
            for name in instruction.called:
                yield from _executed(program, name, times)
        elif instruction.opcode == "conditional":
            branches = [list(_executed(program, name, times)) for name in instruction.called]
            yield from max(branches, key=len, default=[])
        else:
            yield computation, instruction, times, True


def scopes_of(op_name: str) -> list[str]:
    """The named scopes of an op_name: "jit(f)/gradients/transpose(jvp(encoder))/block_01/mul" -> encoder, block_01."""
    found = []
    for piece in op_name.split("/")[:-1]:
        while match := _WRAPPER.match(piece):
            piece = match[1]
        if piece not in _NO_SCOPE and "(" not in piece and ")" not in piece and "<" not in piece:
            found.append(piece)
    return found


def part_of(op_name: str) -> str:
    """The part of the model or of the step that an op_name belongs to; "other" where it names no scope."""
    scopes = scopes_of(op_name)
    if not scopes:
        return "other"
    first, second = scopes[0], scopes[1] if len(scopes) > 1 else ""
    if first == "encoder":
        if second.startswith(("block_", "stage_")):
            return "encoder blocks"
        return "encoder, embedding" if second == "patch_embed" else "encoder, other"
    return "decoders" if first.startswith("decoder_") else first


def _names(program: Program, computation: str) -> dict[str, str]:
    """An op_name with a scope for every instruction that has one, that fuses one, or whose result has a user with one.

    The compiler's own copies have none, and belong to what they are made for.
    """
    found: dict[str, str] = {}
    wanted: dict[str, str] = {}  # the op_name of a user
    for instruction in reversed(list(program.computations[computation].values())):
        inside = [i.op_name for name in instruction.called for i in program.computations.get(name, {}).values()]
        names = (instruction.op_name, *reversed(inside), wanted.get(instruction.name, ""))
        name = next((name for name in names if scopes_of(name)), "")
        found[instruction.name] = name
        if name and instruction.opcode != "tuple":
            wanted.update((operand, name) for operand in instruction.operands)
    for instruction in program.computations[computation].values():  # what is only returned belongs to its maker
        if not found[instruction.name]:
            found[instruction.name] = next((found[name] for name in instruction.operands if found.get(name)), "")
    return found


def _kernel(program: Program, computation: str, instruction: Instruction, times: int, op_name: str) -> Iterator[Kernel]:
    opcode = instruction.opcode
    if opcode in _FREE or opcode.endswith(("-done", "-update")) or instruction.target in _FREE_TARGETS:
        return
    flops, dtype = products.flops(program, computation, instruction)
    moved = _moved(program, computation, instruction)
    padded = sum(array.padded_bytes for array in moved)
    yield Kernel(
        name=instruction.name,
        opcode=instruction.target or opcode,
        part=part_of(op_name),
        backward="transpose(" in op_name,
        times=times,
        bytes=padded,
        padding=padded - sum(array.bytes for array in moved),
        flops=flops,
        dtype=dtype,
    )


def _moved(program: Program, computation: str, instruction: Instruction) -> list[Array]:
    """The arrays that a kernel reads from memory and writes to it."""
    results, opcode = instruction.result, instruction.opcode
    if opcode == "custom-call":  # the further results in bytes are a library's scratch memory
        results = [array for i, array in enumerate(results) if i == 0 or array.dtype not in ("s8", "u8")]
    inputs = {operand.name: operand.result for operand in program.operands(computation, instruction)}
    if opcode.endswith("-start"):  # a tuple: a copy's result, its operand, flags; else operands, result, flags
        first = 0 if opcode == "copy-start" else sum(map(len, inputs.values()))
        results = results[first : first + 1]
    if opcode.removesuffix("-start") in _PARTIAL and opcode.endswith("-start"):
        moved = [*results, *results]
    elif opcode in _PARTIAL:
        inputs = {name: result for i, (name, result) in enumerate(inputs.items()) if i}
        moved = [*results, *results, *(array for result in inputs.values() for array in result)]
    elif opcode == "dynamic-update-slice":
        update = list(inputs.values())[1]
        moved = [*update, *update]
    elif opcode == "fusion" and instruction.called:
        moved = _moved_by_fusion(program, instruction, results, list(program.operands(computation, instruction)))
    else:
        moved = [*results, *(array for result in inputs.values() for array in result)]
    return [array for array in moved if not array.on_chip]


def _moved_by_fusion(
    program: Program, instruction: Instruction, results: list[Array], operands: list[Instruction]
) -> list[Array]:
    """A fusion that only slices an operand reads the slice; one that updates a slice of an operand writes only that."""
    body = program.computations.get(instruction.called[0], {})
    users = _users(body)
    parameters = sorted(
        (inner for inner in body.values() if inner.opcode == "parameter"), key=lambda inner: int(inner.argument)
    )
    updates = [inner for inner in body.values() if inner.opcode == "dynamic-update-slice"]
    replaced = {inner.operands[0] for inner in updates}
    moved, seen = [], set()
    for parameter, operand in zip(parameters, operands, strict=False):
        reads = users.get(parameter.name, [])
        if parameter.name in replaced and len(reads) == 1:
            continue  # updated in place
        parts = _parts_read(program, instruction.called[0], parameter.name)
        if parts is not None:
            whole = sum(array.padded_bytes for array in operand.result)
            moved += parts if sum(array.padded_bytes for array in parts) < whole else operand.result
        elif operand.name not in seen:
            seen.add(operand.name)
            moved += operand.result
    written = list(results)
    for update in updates:
        updated = update.result[0]
        match = next((i for i, array in enumerate(written) if array.dims == updated.dims), None)
        part = body.get(update.operands[1]) if len(update.operands) > 1 else None
        if match is not None and part is not None:
            written[match] = part.result[0]
    return moved + written


def _users(body: Mapping[str, Instruction]) -> dict[str, list[Instruction]]:
    """The instructions that take a value, by its name."""
    users: dict[str, list[Instruction]] = {}
    for inner in body.values():
        for name in inner.operands:
            users.setdefault(name, []).append(inner)
    return users


def _parts_read(program: Program, computation: str, name: str) -> list[Array] | None:
    """What a fusion, and those within it, read of one of its values; None where they read all of it."""
    body, found = program.computations.get(computation, {}), []
    for inner in _users(body).get(name, []):
        if inner.opcode in _PARTIAL and inner.operands[0] == name and name not in inner.operands[1:]:
            found += inner.result
            continue
        parts: list[Array] | None = None
        if inner.opcode == "bitcast":
            parts = _parts_read(program, computation, inner.name)
        elif inner.opcode == "fusion" and inner.called and inner.operands.count(name) == 1:
            place = str(inner.operands.index(name))
            within = program.computations.get(inner.called[0], {}).values()
            parameter = next((i for i in within if i.opcode == "parameter" and i.argument == place), None)
            parts = None if parameter is None else _parts_read(program, inner.called[0], parameter.name)
        if parts is None:
            return None
        found += parts
    return found or None


def _collectives(
    program: Program, computation: str, instruction: Instruction, times: int, op_name: str
) -> Iterator[Collective]:
    """The collective that an instruction is, starts, or fuses."""
    kind = instruction.opcode.removesuffix("-start")
    if kind in COLLECTIVES:
        operands = [array for operand in program.operands(computation, instruction) for array in operand.result]
        results = instruction.result
        if instruction.opcode.endswith("-start") and kind != "all-reduce":
            results = results[len(operands) :] or results
        # The whole arrays: what a gather returns, what the others take.
        whole = results if kind == "all-gather" else operands or results
        yield Collective(
            kind=kind,
            part=part_of(op_name),
            times=times,
            arrays=max(1, len(operands)),
            payload=sum(array.bytes for array in whole if array.dtype != "token"),
            group=_group(instruction.attributes, program.num_partitions),
        )
    elif instruction.opcode in ("fusion", "async-start"):
        for name in instruction.called:
            for inner in program.computations.get(name, {}).values():
                yield from _collectives(program, name, inner, times, op_name)


def _group(attributes: str, devices: int) -> int:
    """The size of a collective's groups: "{{0,1},{2,3}}", "[2,4]<=[8]", "mesh['a'=2,'b'=4] {'b'}", or all devices."""
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", attributes)
    if listed:
        return len(listed[1].split(","))
    named = re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", attributes)
    if named:
        sizes = dict(re.findall(r"'([^']*)'=(\d+)", named[1]))
        parts = re.findall(r"'([^']*)'(?::\(\d+\)(\d+))?", named[2])  # a part of an axis has a size of its own
        return math.prod(int(size or sizes[name]) for name, size in parts)
    iota = re.search(r"replica_groups=\[([\d,]+)\]<=", attributes)
    return math.prod(int(size) for size in iota[1].split(",")[1:]) if iota else devices
