"""XLA's text of a compiled program, parsed: computations of instructions, and where they are from.

The text has three parts: tables of source lines, computations, and among those the ENTRY.
"""

import dataclasses
import math
import re
from collections.abc import Iterator
from functools import cached_property

_DTYPE_BYTES = {
    **dict.fromkeys(("pred", "s8", "u8"), 1),
    **dict.fromkeys(("bf16", "f16", "s16", "u16"), 2),
    **dict.fromkeys(("s32", "u32", "f32"), 4),
    **dict.fromkeys(("s64", "u64", "f64"), 8),
}


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


def computations(text: str) -> dict[str, list[Instruction]]:
    """Returns the instructions of each computation by its name."""
    found = {}
    # A lone brace ends one: the metadata of kernels spans lines.
    for block in re.findall(r"^(?:ENTRY )?%?[\w.\-]+ \(.*?^}$", text, re.M | re.S):
        first, *lines = block.splitlines()
        found[re.sub(r"^(ENTRY )?%?", "", first).split(" ")[0]] = list(_parsed(lines))
    return found


def entry(text: str) -> str:
    """Returns the name of the computation that a device begins with.

    Raises:
      ValueError: if the text is no compiled program.
    """
    found = re.search(r"^ENTRY %?([\w.\-]+)", text, re.M)
    if found is None:
        raise ValueError("the text is not a compiled program: it has no ENTRY")
    return found[1]


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


class Sources:
    """The source lines that instructions were made from."""

    def __init__(self, text: str):
        """Keeps the program's text, which is read on first use."""
        self._text = text

    def line(self, one: Instruction, package: str = "albert_jax") -> str | None:
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


def _table(text: str, name: str) -> str:
    found = re.search(rf"^{name}\n(.*?)\n\n", text, re.M | re.S)
    return found[1] if found else ""


def _within(place: str, package: str) -> str | None:
    """Returns the place from the package's folder on, if it is in there."""
    _, folder, rest = place.rpartition(f"/{package}/")
    return f"{package}/{rest}" if folder else None
