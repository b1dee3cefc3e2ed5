"""Reads a compiled program: what a device runs in a step, its FLOPs, traffic and collectives.

That is the program after fusion, layout and scheduling. Loops and fusions are instructions that
call other computations.
"""

import dataclasses
import math
import re
from collections.abc import Iterator
from functools import cached_property

import numpy as np

from albert_jax.train.hlo import Array, Instruction, Sources, computations, entry

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
        self.computations, self._entry = computations(text), entry(text)
        self.sources = Sources(text)

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
                branches = re.findall(r"%([\w.\-]+)", one.attributes.partition(")")[2])
                for branch in (name for name in branches if name in self.computations):
                    yield from self._reached(branch, times)

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
        total = 0
        for number, given in enumerate(operands):
            if given and not given[0].on_chip:
                total += self._read(_callee(fusion, "calls"), number)
        written = self._written(_callee(fusion, "calls"))
        for array, size in zip(fusion.results, written, strict=False):
            total += 0 if array.on_chip else size
        return total

    def _read(self, name: str, number: int) -> int:
        """Returns the bytes that a computation reads of its parameter of that number."""
        body = self.computations[name]
        parameters = (one for one in body if one.opcode == "parameter")
        source = next(one for one in parameters if one.attribute(r"^(\d+)\)") == str(number))
        total, same = 0, {source.name}
        for one in body:
            for place, operand in enumerate(one.operands):
                if operand not in same:
                    continue
                if one.opcode == "bitcast":
                    same.add(one.name)
                elif one.opcode in ("dynamic-slice", "slice", "gather") and place == 0:
                    total += one.bytes
                elif one.opcode == "fusion":
                    total += self._read(_callee(one, "calls"), place)
                elif one.opcode != "dynamic-update-slice" or place:  # written in place
                    return source.bytes
        return min(total, source.bytes)

    def _written(self, name: str) -> list[int]:
        """Returns the bytes that a computation writes of each of its results."""
        body = self.computations[name]
        by_name = {one.name: one for one in body}
        last = body[-1]
        roots = [by_name[name] for name in last.operands] if last.opcode == "tuple" else [last]
        sizes = []
        for root in roots:
            while root.opcode == "bitcast":
                root = by_name[root.operands[0]]
            if root.opcode == "dynamic-update-slice":
                sizes.append(by_name[root.operands[1]].bytes)
            elif root.opcode == "fusion" and len(root.results) == 1:
                sizes += self._written(_callee(root, "calls"))
            else:
                sizes.append(root.results[0].bytes)
        return sizes

    def collectives(self) -> list[Collective]:
        """Returns every collective of a step."""
        found = []
        for one in self.instructions:
            kind = one.opcode.removesuffix("-start")
            if kind in COLLECTIVES:
                arrays = list(one.results)
                if one.opcode == "all-gather-start":  # also names its operands, first
                    arrays = arrays[len(arrays) // 2 :]
                elif one.opcode == "collective-permute-start":  # (source, target, contexts)
                    arrays = arrays[1:2]
                size = sum(array.bytes for array in arrays)
                found.append(Collective(kind, size, one.times, arrays[0].dtype, _groups(one)))
        return found


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


def _groups(one: Instruction) -> tuple[tuple[int, ...], ...]:
    """Parses the groups of devices, in any of the forms that XLA prints.

    `{{0,1},{2,3}}`; `[2,2]<=[4]`, with axes transposed by `T(1,0)`; or the axes of a mesh,
    `mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'a'}`.
    """
    text = one.attribute(r"replica_groups=(.*?)(?:, \w+=(?!\()|$)") or ""
    if mesh := re.match(r"mesh\[(.*?)\](?:, device_ids=\((\S+?)\))? \{(.*?)\}", text):
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
        grouped = re.findall(r"'(\w+)'", mesh[3])
        places = _iota(mesh[2] or f"[{math.prod(sizes.values())}]").reshape(tuple(sizes.values()))
        order = sorted(range(len(sizes)), key=lambda axis: [*sizes][axis] in grouped)
        groups = places.transpose(order).reshape(-1, math.prod(sizes[name] for name in grouped))
    elif short := re.match(r"\[([\d,]+)\]<=(\S+)", text):
        groups = _iota(short[2]).reshape([int(n) for n in short[1].split(",")])
    else:
        groups = [group.split(",") for group in re.findall(r"\{([\d,]+)\}", text)]
    return tuple(tuple(int(n) for n in group) for group in groups)


def _iota(text: str) -> np.ndarray:
    """Parses `[2,4]T(1,0)`: the numbers from 0 in that shape, its axes then transposed."""
    dims, order = (re.search(rf"{mark}([\d,]+)", text) for mark in (r"\[", r"T\("))
    assert dims is not None, text
    shape = [int(n) for n in dims[1].split(",")]
    axes = [int(n) for n in order[1].split(",")] if order else range(len(shape))
    return np.arange(math.prod(shape)).reshape(shape).transpose(axes)
