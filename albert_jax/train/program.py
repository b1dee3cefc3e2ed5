"""Reads a compiled program: its instructions, FLOPs, memory traffic and collectives.

XLA prints a program as computations, each a list of instructions; loops and fusions call other
computations. It is what a device would run: after fusion, layout and scheduling.
"""

import dataclasses
import math
import re
from collections.abc import Iterator
from functools import cached_property

import numpy as np

_DTYPE_BYTES = {
    **dict.fromkeys(("pred", "s8", "u8"), 1),
    **dict.fromkeys(("bf16", "f16", "s16", "u16"), 2),
    **dict.fromkeys(("s32", "u32", "f32"), 4),
    **dict.fromkeys(("s64", "u64", "f64"), 8),
}
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# Names for what is there already, and ends of what was counted at its start.
NO_WORK = frozenset(
    (
        *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "while"),
        *("call", "conditional", "opt-barrier", "partition-id", "async-start", "async-update"),
        *(f"{name}-done" for name in (*COLLECTIVES, "copy", "async", "slice")),
    )
)


@dataclasses.dataclass(frozen=True)
class Array:
    """An array that an instruction makes; `on_chip` if it lies in a TPU's vector memory."""

    dtype: str
    dims: tuple[int, ...]
    on_chip: bool = False

    @property
    def bytes(self) -> int:
        """Its size, without padding."""
        return math.prod(self.dims) * _DTYPE_BYTES.get(self.dtype, 0)

    @property
    def traffic(self) -> int:
        """The bytes that it takes to read or write it in device memory."""
        return 0 if self.on_chip else self.bytes

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.dims))}]"


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction; `times` is how often a step runs it."""

    name: str
    opcode: str
    results: tuple[Array, ...]
    operands: tuple[str, ...]
    attributes: str
    times: int = 1

    def attribute(self, pattern: str) -> str | None:
        """Returns what the pattern's group matches in the instruction's attributes."""
        found = re.search(pattern, self.attributes)
        return found[1] if found else None

    def number(self, key: str) -> int | None:
        """Returns a number noted by the compiler or a kernel's author, as `estimated_cycles`."""
        found = self.attribute(rf'"{key}":"?(\d+)"?')
        return int(found) if found else None

    @property
    def op_name(self) -> str:
        """The scopes and the operation in the source that it was made from."""
        return self.attribute(r'op_name="([^"]*)"') or ""

    @property
    def kernel(self) -> str | None:
        """The name of the kernel, if it is one that XLA did not make."""
        target = self.attribute(r'custom_call_target="([^"]*)"') or ""
        if target == "tpu_custom_call":
            return self.op_name.removesuffix("/pallas_call").rpartition("/")[2]
        return target if "fmha" in target else None

    @property
    def bytes(self) -> int:
        """The size of what it makes."""
        return sum(array.bytes for array in self.results)


@dataclasses.dataclass(frozen=True)
class Collective:
    """A collective: its kind, the bytes of its result on a device, and how often a step runs it.

    `groups` are the devices, by their place in the mesh, that take part together.
    """

    kind: str
    bytes: int
    times: int
    dtype: str
    groups: tuple[tuple[int, ...], ...]


class Program:
    """What a device runs in a step, parsed from `compiled.as_text()`."""

    def __init__(self, text: str):
        """Parses the program."""
        self._text = text
        self.computations = {name: list(_parsed(lines)) for name, lines in _blocks(text)}
        found = re.search(r"^ENTRY %?([\w.\-]+)", text, re.M)
        if found is None:
            raise ValueError("the text is not a compiled program: it has no ENTRY")
        self._entry = found[1]

    @cached_property
    def instructions(self) -> list[Instruction]:
        """Every instruction that a device starts, with the turns of loops as `times`."""
        return list(self._reached(self._entry, 1))

    def _reached(self, name: str, times: int) -> Iterator[Instruction]:
        for one in self.computations[name]:
            yield dataclasses.replace(one, times=times)
            if one.opcode == "while":
                yield from self._reached(_callee(one, "body"), times * self._turns(one))
            elif one.opcode in ("call", "async-start"):
                yield from self._reached(_callee(one, "to_apply|calls"), times)
            elif one.opcode == "conditional":
                for name in re.findall(r"%([\w.\-]+)", one.attribute(r"\{(%[^}]*)\}") or ""):
                    yield from self._reached(name, times)

    def _turns(self, loop: Instruction) -> int:
        printed = loop.attribute(r'known_trip_count":\{"n":"(\d+)"')
        if printed:
            return int(printed)
        # On TPUs it is not printed: the condition compares a counter from 0 with a constant.
        condition = self.computations[_callee(loop, "condition")]
        bounds = [one.attribute(r"^(\d+)\)") for one in condition if one.opcode == "constant"]
        if len(bounds) != 1 or bounds[0] is None:
            raise ValueError(f"cannot read how often the loop {loop.name} turns")
        return int(bounds[0])

    def sizes(self, one: Instruction) -> list[tuple[Array, ...]]:
        """Returns what each operand of an instruction is."""
        known = self._results[one.name]
        return [known.get(name, ()) for name in one.operands]

    @cached_property
    def _results(self) -> dict[str, dict[str, tuple[Array, ...]]]:
        """Instruction -> the results in its computation, by name."""
        found = {}
        for instructions in self.computations.values():
            results = {one.name: one.results for one in instructions}
            found |= dict.fromkeys(results, results)
        return found

    def flops(self, one: Instruction) -> int:
        """Returns the FLOPs of an instruction's matrix products, once; 2 for a multiply-add."""
        if one.opcode == "fusion":
            return sum(map(self.flops, self.computations[_callee(one, "calls")]))
        if one.opcode == "convolution":
            return 2 * self._convolution_products(one)
        if one.opcode == "dot" or "gemm" in (one.attribute(r'custom_call_target="([^"]*)"') or ""):
            return 2 * _size(one.results[0]) * self._contraction(one)
        return 0

    def _contraction(self, dot: Instruction) -> int:
        (left, *_), *_ = self.sizes(dot)
        axes = dot.attribute(r'lhs_contracting_dim\w*"?[:=][\[{]([\d,"]*)[\]}]') or ""
        return math.prod(left.dims[int(axis)] for axis in re.findall(r"\d+", axes))

    def _convolution_products(self, one: Instruction) -> int:
        """Returns the multiplications of a convolution, which is how TPUs print a product.

        Batches are printed as spatial axes, padded or dilated so that most of the window is over
        nothing; that is not counted.
        """
        (left, *_), (kernel, *_), *_ = self.sizes(one)
        labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", one.attributes)
        assert labels, f"convolution {one.name} has no dim_labels"
        products = kernel.dims[labels[2].index("i")]
        for label, dim in zip(labels[3], one.results[0].dims, strict=True):
            if label.isdigit():
                products *= _window_hits(one, int(label), left.dims[labels[1].index(label)], dim)
            else:
                products *= dim
        return products

    def traffic(self, one: Instruction) -> int:
        """Returns the bytes that an instruction reads from and writes to memory, once."""
        if one.opcode in NO_WORK:
            return 0
        if one.opcode == "copy-start":  # (target, source, context)
            return sum(array.traffic for array in one.results[:2])
        if one.opcode == "slice-start":  # (source, target, context)
            return one.results[1].bytes + one.results[1].traffic
        if one.opcode in ("dynamic-slice", "slice", "gather"):
            return 2 * sum(array.traffic for array in one.results)
        operands = self.sizes(one)
        if one.opcode == "dynamic-update-slice":
            return 2 * sum(array.traffic for array in operands[1])
        if one.opcode == "fusion":
            return self._fusion_traffic(one, operands)
        arrays = [array for arrays in operands for array in arrays]
        return sum(array.traffic for array in (*arrays, *one.results))

    def _fusion_traffic(self, fusion: Instruction, operands: list[tuple[Array, ...]]) -> int:
        """Counts of a stack that a fusion reads from or writes into only the slice it touches."""
        body = self.computations[_callee(fusion, "calls")]
        by_name = {one.name: one for one in body}
        users: dict[str, list[Instruction]] = {}
        for one in body:
            for name in one.operands:
                users.setdefault(name, []).append(one)
        total = 0
        for one in body:
            if one.opcode == "parameter":
                (given, *_) = operands[int(one.attribute(r"^(\d+)\)") or 0)] or one.results
                total += 0 if given.on_chip else _read(one, users)
        roots = _roots(body, by_name)
        for array, root in zip(fusion.results, roots, strict=False):
            written = root.results[0]
            if root.opcode == "dynamic-update-slice":
                written = by_name[root.operands[1]].results[0]
            total += 0 if array.on_chip else written.bytes
        return total

    def collectives(self) -> list[Collective]:
        """Returns every collective of a step."""
        found = []
        for one in self.instructions:
            kind = one.opcode.removesuffix("-start")
            if kind in COLLECTIVES:
                # The start of an asynchronous one also names its operands.
                arrays = list(one.results)
                if one.opcode.endswith("-start") and len(arrays) > 1:
                    arrays = arrays[len(arrays) // 2 :]
                size = sum(array.bytes for array in arrays)
                found.append(Collective(kind, size, one.times, arrays[0].dtype, _groups(one)))
        return found

    def source(self, one: Instruction, package: str = "albert_jax") -> str | None:
        """Returns the innermost line of the package that made an instruction, as file:line."""
        frame = one.attribute(r"stack_frame_id=(\d+)")
        if frame is None:
            found = re.search(r'source_file="([^"]*)" source_line=(\d+)', one.attributes)
            return _within(f"{found[1]}:{found[2]}", package) if found else None
        while frame in self._frames:
            place, parent = self._frames[frame]
            if (line := _within(place, package)) or parent == frame:
                return line
            frame = parent
        return None

    @cached_property
    def _frames(self) -> dict[str, tuple[str, str]]:
        """Frame -> file:line, and the frame that called it."""
        files = dict(re.findall(r'^(\d+) "([^"]*)"$', _table(self._text, "FileNames"), re.M))
        places = {
            number: f"{files.get(file)}:{line}"
            for number, file, line in re.findall(
                r"^(\d+) \{file_name_id=(\d+) function_name_id=\d+ line=(\d+)",
                _table(self._text, "FileLocations"),
                re.M,
            )
        }
        return {
            number: (places.get(place, ""), parent)
            for number, place, parent in re.findall(
                r"^(\d+) \{file_location_id=(\d+)(?: parent_frame_id=(\d+))?",
                _table(self._text, "StackFrames"),
                re.M,
            )
        }


def _blocks(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yields the name and lines of each computation.

    A lone brace ends one: the metadata of kernels spans lines.
    """
    for block in re.findall(r"^(?:ENTRY )?%?[\w.\-]+ \(.*?^}$", text, re.M | re.S):
        first, *lines = block.splitlines()
        yield re.sub(r"^(ENTRY )?%?", "", first).split(" ")[0], lines


def _parsed(lines: list[str]) -> Iterator[Instruction]:
    for line in lines:
        found = re.match(r"\s*(?:ROOT )?%?([\w.\-]+) = (.*?) ([\w\-]+)\((.*)$", line)
        if found:
            name, shapes, opcode, rest = found.groups()
            inside, _, _ = rest.partition(")")
            yield Instruction(
                name, opcode, _arrays(shapes), tuple(re.findall(r"%([\w.\-]+)", inside)), rest
            )


def _arrays(shapes: str) -> tuple[Array, ...]:
    """Parses `bf16[2,3]{1,0:T(8,128)S(1)}`, or a tuple of such."""
    return tuple(
        Array(dtype, tuple(int(n) for n in dims.split(",") if n), "S(1)" in layout)
        for dtype, dims, layout in re.findall(r"(\w+)\[([\d,]*)\](\{[^}]*\})?", shapes)
    )


def _size(array: Array) -> int:
    return math.prod(array.dims)


def _callee(one: Instruction, kind: str) -> str:
    found = re.search(rf"(?:{kind})=%?([\w.\-]+)", one.attributes)
    if found is None:
        raise ValueError(f"{one.opcode} {one.name} names no {kind}")
    return found[1]


def _window_hits(one: Instruction, axis: int, length: int, outputs: int) -> int:
    """Returns how many (output, window) positions of an axis have an element of the input."""

    def setting(name: str, default: str) -> str:
        found = one.attribute(rf"window=\{{[^}}]*?{name}=([\d_x\-]+)")
        return found.split("x")[axis] if found else default

    size, stride, dilation = (int(setting(n, "1")) for n in ("size", "stride", "lhs_dilate"))
    before = int(setting("pad", "0_0").split("_")[0])
    at = np.arange(outputs)[:, None] * stride + np.arange(size) - before
    return int(((at >= 0) & (at % dilation == 0) & (at // dilation < length)).sum())


def _read(source: Instruction, users: dict[str, list[Instruction]]) -> int:
    """Returns the bytes of an array that a fusion's instructions read."""
    total = 0
    for user in users.get(source.name, []):
        if user.opcode == "bitcast":
            total += _read(user, users)
        elif user.opcode in ("dynamic-slice", "slice", "gather"):
            total += user.bytes
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == source.name:
            continue  # written in place
        else:
            return source.bytes
    return min(total, source.bytes)


def _roots(body: list[Instruction], by_name: dict[str, Instruction]) -> list[Instruction]:
    """Returns what makes each result of a fusion, seen through bitcasts."""
    last = body[-1]
    roots = [by_name[name] for name in last.operands] if last.opcode == "tuple" else [last]
    for i, root in enumerate(roots):
        while root.opcode == "bitcast":
            root = by_name[root.operands[0]]
        roots[i] = root
    return roots


def _groups(one: Instruction) -> tuple[tuple[int, ...], ...]:
    """Parses `{{0,1},{2,3}}`, or the short form `[2,2]<=[4]` with axes transposed by `T(1,0)`."""
    short = re.search(
        r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", one.attributes
    )
    if short:
        shape, dims, order = (
            tuple(map(int, part.split(","))) if part else None for part in short.groups()
        )
        assert dims is not None
        assert shape is not None
        places = np.arange(math.prod(dims)).reshape(dims).transpose(order).reshape(shape)
        return tuple(tuple(int(n) for n in group) for group in places)
    listed = one.attribute(r"replica_groups=\{(\{[^=]*?\})\}") or ""
    return tuple(
        tuple(int(n) for n in group.split(",")) for group in re.findall(r"\{([\d,]+)\}", listed)
    )


def _table(text: str, name: str) -> str:
    found = re.search(rf"^{name}\n(.*?)\n\n", text, re.M | re.S)
    return found[1] if found else ""


def _within(place: str, package: str) -> str | None:
    """Returns the place from the package's folder on, if it is in there."""
    _, folder, rest = place.rpartition(f"/{package}/")
    return f"{package}/{rest}" if folder else None
